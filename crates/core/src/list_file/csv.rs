//! CSV: a header that names the columns, or the network in the first field.

use ipwarden_engine::network::Network;

use super::{ListFileError, Reading};

/// What a column of networks is called.
pub(super) const NETWORK: [&str; 9] =
    ["network", "ip", "address", "ip_address", "cidr", "range", "value", "target", "prefix"];

/// What a column of reasons is called.
pub(super) const REASON: [&str; 5] = ["reason", "comment", "description", "remark", "note"];

/// What a column of ends is called.
pub(super) const ENDS: [&str; 5] = ["expires_at", "expires", "expiration", "until", "ends"];

/// Whether a line names a column of networks.
pub(super) fn is_header(line: &str) -> bool {
    line.split(',').any(|field| is_one_of(&NETWORK, field.trim().trim_matches('"')))
}

pub(super) fn read(text: &str, reading: &mut Reading) -> Result<(), ListFileError> {
    let mut rows = ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .trim(::csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut columns: Option<Columns> = None;
    let mut row = ::csv::StringRecord::new();
    loop {
        let at = rows.position().line();
        let more = rows.read_record(&mut row).map_err(|error| ListFileError::Form {
            line: error.position().map_or(at, ::csv::Position::line),
            what: error.to_string(),
        })?;
        if !more {
            return Ok(());
        }
        let line = row.position().map_or(at, ::csv::Position::line);
        let first = row.get(0).unwrap_or_default();
        if first.is_empty() && row.len() == 1 || first.starts_with(';') {
            continue;
        }
        let Some(columns) = &columns else {
            let (read, is_header) = Columns::of(&row, line)?;
            if !is_header {
                read.take(&row, line, reading);
            }
            columns = Some(read);
            continue;
        };
        columns.take(&row, line, reading);
    }
}

/// Where things stand in a row.
struct Columns {
    network: usize,
    reason: Option<usize>,
    ends: Option<usize>,
}

impl Columns {
    /// Of the first row, and whether that is a header.
    fn of(row: &::csv::StringRecord, line: u64) -> Result<(Columns, bool), ListFileError> {
        let position = |names: &[&str]| row.iter().position(|field| is_one_of(names, field));
        if let Some(network) = position(&NETWORK) {
            let (reason, ends) = (position(&REASON), position(&ENDS));
            return Ok((Columns { network, reason, ends }, true));
        }
        let has_network = row.iter().any(|field| Network::parse(field).is_ok());
        let wordlike = |field: &str| field.chars().any(char::is_alphabetic) && !field.contains('.');
        if !has_network && row.iter().all(|field| field.is_empty() || wordlike(field)) {
            let names: Vec<&str> = row.iter().take(20).collect();
            let names = names.join(", ").escape_debug().to_string();
            let what = format!(
                "no column holds the networks: the header names {names}; call one of them `network`"
            );
            return Err(ListFileError::Form { line, what });
        }
        let network = row.iter().position(|field| Network::parse(field).is_ok()).unwrap_or(0);
        Ok((Columns { network, reason: None, ends: None }, false))
    }

    fn take(&self, row: &::csv::StringRecord, line: u64, reading: &mut Reading) {
        let field = |column: Option<usize>| column.and_then(|column| row.get(column));
        let network = row.get(self.network).unwrap_or_default();
        reading.take(line, network, field(self.reason), field(self.ends));
    }
}

fn is_one_of(names: &[&str], field: &str) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(field))
}
