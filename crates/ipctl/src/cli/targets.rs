//! Addresses and networks as targets: words of the command line, lines of a file or of standard
//! input.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use clap::{ArgGroup, Args};
use ipwarden_engine::network::{Network, Parsed};

use crate::failure::Failure;

/// The most targets of one change; it is one transaction, and other changes wait for it.
const MOST: usize = 5_000;

/// The most that is read of a file, in bytes.
const MOST_BYTES: u64 = 16 << 20;

/// The most wrong targets that are told one by one.
const TOLD: usize = 10;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct Targets {
    /// Addresses or CIDRs; `-` reads them from standard input, one a line, `@FILE` from a file
    #[arg(value_name = "TARGET", group = "what")]
    targets: Vec<String>,
    /// An address, as one of the targets
    #[arg(short, long, value_name = "IP", group = "what")]
    ip: Vec<String>,
    /// A network, as one of the targets
    #[arg(short, long, value_name = "CIDR", group = "what")]
    range: Vec<String>,
}

impl Targets {
    /// Reads them all.
    ///
    /// # Errors
    /// [`Failure::Usage`] tells what is wrong with each that is no target.
    pub(crate) fn read(&self) -> Result<Vec<Parsed>, Failure> {
        let mut reading = Reading::default();
        for word in self.targets.iter().chain(&self.ip).chain(&self.range) {
            match (word.as_str(), word.strip_prefix('@')) {
                ("-", _) => reading.lines("standard input", io::stdin().lock())?,
                (_, Some(path)) => {
                    let file = File::open(path)
                        .map_err(|error| Failure::Usage(format!("cannot read {path}: {error}")))?;
                    reading.lines(path, BufReader::new(file))?;
                }
                (word, None) => reading.take(word, None),
            }
        }
        reading.finish()
    }
}

#[derive(Default)]
struct Reading {
    targets: Vec<Parsed>,
    wrong: Vec<String>,
}

impl Reading {
    /// One target a line; what stands behind `#` is a remark.
    fn lines(&mut self, name: &str, source: impl BufRead) -> Result<(), Failure> {
        let cannot = |error| Failure::Usage(format!("cannot read {name}: {error}"));
        let mut source = source.take(MOST_BYTES);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if source.read_until(b'\n', &mut line).map_err(cannot)? == 0 {
                break;
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_start_matches('\u{feff}');
            let target = text.split('#').next().unwrap_or(text).trim();
            if !target.is_empty() {
                self.take(target, Some((name, number)));
            }
        }
        if source.limit() == 0 {
            return Err(Failure::Usage(format!("{name} is longer than {} MiB", MOST_BYTES >> 20)));
        }
        Ok(())
    }

    fn take(&mut self, word: &str, place: Option<(&str, usize)>) {
        match Network::parse(word) {
            Ok(target) => self.targets.push(target),
            Err(error) => self.wrong.push(match place {
                None => error.to_string(),
                Some((name, line)) => format!("{name}, line {line}: {error}"),
            }),
        }
    }

    fn finish(self) -> Result<Vec<Parsed>, Failure> {
        if !self.wrong.is_empty() {
            let more = self.wrong.len().saturating_sub(TOLD);
            let mut told = self.wrong;
            told.truncate(TOLD);
            if more > 0 {
                told.push(format!("and {more} more"));
            }
            return Err(Failure::Usage(told.join("\n")));
        }
        match self.targets.len() {
            0 => Err(Failure::Usage("no target was given: the input is empty".to_owned())),
            1..=MOST => Ok(self.targets),
            many => Err(Failure::Usage(format!(
                "{many} targets are too many for one change; give at most {MOST} at a time"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<String>, String> {
        let mut reading = Reading::default();
        reading.lines("list", text).map_err(|error| error.to_string())?;
        let read = reading.finish().map_err(|error| error.to_string())?;
        Ok(read.iter().map(|target| target.network.to_string()).collect())
    }

    #[test]
    fn a_file_has_a_target_a_line_and_remarks() {
        let text = b"\xef\xbb\xbf192.0.2.1\r\n\n  # all of it\n2001:db8::/32 # documentation\n";
        assert_eq!(read(text).unwrap(), ["192.0.2.1", "2001:db8::/32"]);
    }

    #[test]
    fn each_wrong_line_is_told_with_its_number() {
        let error = read(b"192.0.2.1\nexample.com\n\xff\n").unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        assert!(lines[0].starts_with("list, line 2: `example.com` is no address"), "{error}");
        assert!(lines[1].starts_with("list, line 3: "), "{error}");
        let many = read("x\n".repeat(25).as_bytes()).unwrap_err();
        assert_eq!(many.lines().last(), Some("and 15 more"));
        assert!(read(b"# nothing\n").unwrap_err().contains("empty"));
    }
}
