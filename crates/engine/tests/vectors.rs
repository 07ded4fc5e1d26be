//! The vectors: rows of cases with their expected answers, each with an id.
//!
//! They are read from `tests/vectors/`, and also from the directory that the environment variable
//! `IPWARDEN_VECTORS` names, where each of the files may be missing.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipwarden_engine::client_ip::{ClientIpResolver, DEFAULT_HEADER};
use ipwarden_engine::network::Network;
use ipwarden_engine::sensitive_path::SensitivePaths;
use ipwarden_engine::target::{self, Rails};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct ClientIpCase {
    id: String,
    trusted: Vec<String>,
    peer: String,
    headers: Vec<(String, String)>,
    /// The client's address, or null where the configuration is refused.
    expect: Option<String>,
    why: String,
}

#[derive(Deserialize)]
struct PathCase {
    id: String,
    path: String,
    sensitive: bool,
    why: String,
}

#[derive(Deserialize)]
struct TargetCase {
    id: String,
    target: String,
    valid: bool,
    canonical: Option<String>,
    why: String,
}

#[test]
fn vectors() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let others = std::env::var_os("IPWARDEN_VECTORS").map(PathBuf::from);
    let mut failures = Vec::new();
    for directory in [Some(&own), others.as_ref()].into_iter().flatten() {
        let is_required = directory == &own;
        assert!(directory.is_dir(), "there is no directory {}", directory.display());
        failures.extend(judge(directory, "client_ip.jsonl", is_required, client_ip));
        failures.extend(judge(directory, "paths.jsonl", is_required, path));
        failures.extend(judge(directory, "targets.jsonl", is_required, blocked_target));
    }
    assert!(failures.is_empty(), "{} rows fail:\n{}", failures.len(), failures.join("\n"));
}

/// Judges each row of a file; an answer is the id of a row that fails and what was wrong.
fn judge<Case: DeserializeOwned>(
    directory: &Path,
    file: &str,
    is_required: bool,
    judge_one: fn(Case) -> Result<(), String>,
) -> Vec<String> {
    let file = directory.join(file);
    if !is_required && !file.exists() {
        return Vec::new();
    }
    let text = std::fs::read_to_string(&file).expect("the file of vectors can be read");
    let rows = text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty());
    let judged = rows.map(|(line, row)| match serde_json::from_str(row) {
        Ok(case) => judge_one(case),
        Err(error) => Err(format!("{} in {}:{}: {error}", id(row), file.display(), line + 1)),
    });
    let judged: Vec<_> = judged.collect();
    assert!(!judged.is_empty(), "{} holds no rows", file.display());
    judged.into_iter().filter_map(Result::err).collect()
}

/// The id of a row whose other fields cannot be read.
fn id(row: &str) -> String {
    let row: Option<serde_json::Value> = serde_json::from_str(row).ok();
    row.and_then(|row| row["id"].as_str().map(str::to_owned))
        .unwrap_or("a row without id".to_owned())
}

fn client_ip(case: ClientIpCase) -> Result<(), String> {
    let Some(peer) = peer(&case.peer) else {
        return Err(format!("{}: the peer {:?} is no address", case.id, case.peer));
    };
    let resolver = ClientIpResolver::from_strings(DEFAULT_HEADER, &case.trusted, "");
    let found = resolver.ok().map(|resolver| {
        let (name, fields) = (resolver.header(), &case.headers);
        let lines: Vec<&[u8]> = fields
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_bytes())
            .collect();
        resolver.resolve(peer, &lines).ip.to_string()
    });
    compare(&case.id, &found, &case.expect, &case.why)
}

/// A peer as a socket would give it, whose address has no zone.
fn peer(text: &str) -> Option<IpAddr> {
    let address = text.split('%').next().unwrap_or(text).parse();
    address.ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

fn path(case: PathCase) -> Result<(), String> {
    let sensitive = SensitivePaths::default().matches(&case.path);
    compare(&case.id, &sensitive, &case.sensitive, &format!("{}: {}", case.path, case.why))
}

fn blocked_target(case: TargetCase) -> Result<(), String> {
    let found = Network::parse(&case.target)
        .ok()
        .map(|parsed| parsed.network)
        .filter(|network| target::check(network, &Rails::default()).is_ok())
        .map(|network| network.to_string());
    compare(&case.id, &found.is_some(), &case.valid, &case.why)?;
    compare(&case.id, &found, &case.canonical, &case.why)
}

fn compare<T: PartialEq + std::fmt::Debug>(
    id: &str,
    found: &T,
    expected: &T,
    why: &str,
) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{id}: {found:?} instead of {expected:?} ({why})")),
    }
}
