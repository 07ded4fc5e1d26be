//! Lines of access logs against a plain reading of the combined format, and against themselves.
//!
//! An input is a file, one line or several. What is judged: that every line that is not empty is a
//! record or a refusal and none is lost, that every field of a record is safe and bounded, that a
//! record written as a line again is the same record, and that a line without escapes says what
//! its quotes and spaces say.

use std::net::IpAddr;

use chrono::DateTime;
use ipwarden_core::access_log::AccessLog;
use ipwarden_engine::record::{
    MAX_IDENTITY, MAX_METHOD, MAX_PATH, MAX_USER_AGENT, Record, RecordVerdict, escape_path,
    escape_user_agent,
};
use ipwarden_engine::sensitive_path::SensitivePaths;

/// Judges one input.
///
/// # Panics
/// If the reading of a line breaks a promise.
pub(crate) fn access_log_line(input: &[u8]) {
    if input.starts_with(&[0x1f, 0x8b]) {
        return;
    }
    let rows = input.split(|byte| *byte == b'\n').zip(1..);
    let rows = rows.map(|(row, number)| (row.strip_suffix(b"\r").unwrap_or(row), number));
    let mut rows = rows.filter(|(row, _)| !row.is_empty());
    for found in read(input) {
        let (row, number) = rows.next().expect("nothing comes from nowhere");
        match found {
            Ok(record) => {
                is_safe(&record);
                is_itself_when_written_again(&record);
                if let Some(plain) = plain(row) {
                    plain.agrees(&record);
                }
            }
            Err((line, message)) => {
                assert_eq!(line, number);
                assert!(message.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{message:?}");
                assert!(message.len() < 500, "{message:?}");
                assert!(!plain(row).is_some_and(|plain| plain.is_right), "{message}");
            }
        }
    }
    assert_eq!(rows.next(), None, "no line is lost");
}

/// All records, and of each refusal the line and what it says.
fn read(file: &[u8]) -> Vec<Result<Record, (u64, String)>> {
    let sensitive = SensitivePaths::default();
    let mut log = AccessLog::new(file, &sensitive).expect("bytes in memory can be read");
    let mut found = Vec::new();
    while let Some(next) = log.next_record().expect("bytes in memory can be read") {
        found.push(next.map_err(|error| (error.line, error.to_string())));
    }
    found
}

fn is_safe(record: &Record) {
    let visible = |text: &str| text.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
    assert!(record.method.len() <= MAX_METHOD && visible(&record.method), "{record:?}");
    assert!(!record.method.is_empty(), "{record:?}");
    assert!(record.path.len() <= MAX_PATH && visible(&record.path), "{record:?}");
    assert!(!record.path.contains(['?', '#']), "{record:?}");
    assert!(record.status < 1_000 && record.verdict == RecordVerdict::Allowed, "{record:?}");
    assert_eq!(record.address, record.address.to_canonical());
    assert!(DateTime::from_timestamp_micros(record.at).is_some(), "{record:?}");
    if let Some(agent) = &record.user_agent {
        let printable = agent.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        assert!(agent.len() <= MAX_USER_AGENT && printable, "{record:?}");
    }
    if let Some(name) = &record.identity {
        assert!(name.len() <= MAX_IDENTITY && !name.contains(char::is_control), "{record:?}");
    }
}

/// Every byte that may mean something in a line as `\xHH`.
fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    text.bytes().map(one).collect()
}

fn is_itself_when_written_again(record: &Record) {
    let at = DateTime::from_timestamp_micros(record.at).expect("a date");
    // Nothing names the path of a target without one, nor a part of a second as load balancers do.
    if record.path.is_empty() || at.timestamp() < 0 || at.timestamp_subsec_micros() > 0 {
        return;
    }
    let request = match record.method.as_str() {
        "-" => record.path.clone(),
        method => format!("{method} {} HTTP/1.1", record.path),
    };
    let status = if record.status == 0 { "-".to_owned() } else { format!("{:03}", record.status) };
    let line = format!(
        "{} - {} [{}] \"{}\" {status} 12 \"-\" \"{}\"",
        record.address,
        record.identity.as_deref().map_or("-".to_owned(), escaped),
        at.format("%d/%b/%Y:%H:%M:%S +0000"),
        escaped(&request),
        record.user_agent.as_deref().map_or("-".to_owned(), escaped),
    );
    let again = read(line.as_bytes());
    let [Ok(again)] = again.as_slice() else { panic!("{line} is {again:?}") };
    // A cut path no longer says all that was judged.
    let sensitive =
        if record.path.len() > MAX_PATH - 3 { record.sensitive } else { again.sensitive };
    let again = Record { reference: record.reference, sensitive, ..again.clone() };
    assert_eq!(again, *record, "{line}");
}

/// What a line without escapes says by its quotes and spaces alone.
struct Plain<'a> {
    is_right: bool,
    host: Option<IpAddr>,
    user: &'a str,
    at: Option<i64>,
    request: &'a str,
    status: &'a str,
    agent: &'a str,
}

/// A line of six quotes and no backslash, with its fields where the combined format has them.
fn plain(row: &[u8]) -> Option<Plain<'_>> {
    let row = std::str::from_utf8(row).ok().filter(|row| !row.contains('\\'))?;
    let fields: Vec<&str> = row.split('"').collect();
    let [head, request, numbers, _referer, " ", agent, ""] = fields.as_slice() else { return None };
    let (names, date) = head.rsplit_once(" [")?;
    let date = date.strip_suffix("] ")?;
    let [host, _ident, user] = names.split(' ').collect::<Vec<_>>()[..] else { return None };
    let numbers = numbers.strip_prefix(' ')?.strip_suffix(' ')?;
    let [status, size] = numbers.split(' ').collect::<Vec<_>>()[..] else { return None };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let host = host.parse::<IpAddr>().ok().filter(|host| !host.to_canonical().is_unspecified());
    let at = DateTime::parse_from_str(date, "%d/%b/%Y:%H:%M:%S %z").ok();
    // A library of dates is more lenient than the format is, so only dates as it writes them count.
    let at = at.filter(|at| at.format("%d/%b/%Y:%H:%M:%S %z").to_string() == date);
    let at =
        at.map(|at| at.timestamp_micros()).filter(|at| (0..253_402_300_800_000_000).contains(at));
    let is_right = host.is_some()
        && at.is_some()
        && status.len() == 3
        && is_number(status)
        && (size == "-" || is_number(size));
    Some(Plain { is_right, host, user, at, request, status, agent })
}

impl Plain<'_> {
    fn agrees(&self, record: &Record) {
        assert_eq!(self.host.map(|host| host.to_canonical()), Some(record.address));
        if let Some(at) = self.at {
            assert_eq!(at, record.at);
        }
        assert!(self.status == "-" || self.status.parse() == Ok(record.status));
        if !matches!(self.agent, "" | "-") {
            assert_eq!(
                record.user_agent.as_deref(),
                Some(&*escape_user_agent(self.agent.as_bytes()))
            );
        } else {
            assert_eq!(record.user_agent, None);
        }
        let is_nobody = matches!(self.user.trim_ascii_end(), "" | "-") || record.status == 401;
        assert_eq!(record.identity.is_none(), is_nobody, "{record:?}");
        if let [method, target, "HTTP/1.1"] = self.request.split(' ').collect::<Vec<_>>()[..]
            && target.starts_with('/')
            && method.bytes().all(|byte| byte.is_ascii_uppercase())
            && (1..=32).contains(&method.len())
        {
            assert_eq!(record.method, method);
            assert_eq!(record.path, escape_path(target.as_bytes()));
            assert_eq!(record.sensitive, SensitivePaths::default().matches(target));
        }
    }
}
