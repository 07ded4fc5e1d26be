//! The CPU time of processes and all that they have started, from `/proc`.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;

/// What `/proc` counts in: USER_HZ, which is 100 on every machine that Rust knows.
const TICK: Duration = Duration::from_millis(10);

/// One line of `/proc/PID/stat`, as far as it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Of the process and of its children that have ended, in ticks.
    ticks: u64,
}

/// The CPU time that these processes, their descendants and those of them that have ended have used.
///
/// # Errors
/// When `/proc` cannot be listed, or one of `roots` is gone.
pub(crate) fn of_trees(roots: &[u32]) -> anyhow::Result<Duration> {
    let processes = processes()?;
    for root in roots {
        processes.get(root).with_context(|| format!("process {root} has ended"))?;
    }
    let belongs = |mut pid: u32| {
        while let Some(stat) = processes.get(&pid) {
            if roots.contains(&pid) {
                return true;
            }
            pid = stat.parent;
        }
        false
    };
    let ticks = processes.iter().filter(|(pid, _)| belongs(**pid)).map(|(_, stat)| stat.ticks);
    Ok(TICK * u32::try_from(ticks.sum::<u64>()).unwrap_or(u32::MAX))
}

/// Resident memory of a process, in bytes.
///
/// # Errors
/// When it is gone.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

fn processes() -> anyhow::Result<HashMap<u32, Stat>> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended in between.
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some(stat) = parse(&text) {
            all.insert(pid, stat);
        }
    }
    Ok(all)
}

fn parse(text: &str) -> Option<Stat> {
    // The name, in brackets, may hold anything.
    let (_, after_name) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // utime, stime, cutime and cstime are fields 14 to 17 (proc_pid_stat(5)); the state is field 3.
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_process_is_called() {
        let line = "42 (a) 9 b) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        assert_eq!(parse(line), Some(Stat { parent: 7, ticks: 100 }));
    }

    #[test]
    fn work_of_a_child_that_has_ended_still_counts() {
        let own = [std::process::id()];
        let before = of_trees(&own).unwrap();
        let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let status = std::process::Command::new("/bin/sh").args(["-c", script]).status().unwrap();
        assert!(status.success());
        assert!(of_trees(&own).unwrap() >= before + 5 * TICK);
    }
}
