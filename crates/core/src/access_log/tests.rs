use std::io::{Cursor, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

const SAMPLE: &[u8] = include_bytes!("../../tests/data/access.log.gz");

fn sensitive() -> SensitivePaths {
    SensitivePaths::new(&["/admin".to_owned(), "/login".to_owned()])
}

/// A line of the given second.
fn line(second: usize) -> String {
    format!("192.0.2.7 - - [17/May/2015:10:05:{second:02} +0000] \"GET /{second} HTTP/1.1\" 200 1")
}

/// The paths of all records, the numbers of all unreadable lines, and the mark at the end.
fn read_all(text: &[u8], known: Option<Mark>) -> (Vec<String>, Vec<u64>, Mark) {
    let sensitive = sensitive();
    let mut log = AccessLog::new(Cursor::new(text), &sensitive).expect("readable");
    if let Some(mark) = known {
        assert!(log.skip_to(&mark).expect("readable"), "the mark is that of the file");
    }
    let (mut paths, mut unreadable) = (Vec::new(), Vec::new());
    while let Some(next) = log.next_record().expect("readable") {
        match next {
            Ok(record) => paths.push(record.path),
            Err(error) => unreadable.push(error.line),
        }
    }
    (paths, unreadable, log.mark())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn the_sample_goes_in_whole() {
    let sensitive = sensitive();
    let mut log = AccessLog::new(SAMPLE, &sensitive).expect("readable");
    let mut addresses = std::collections::BTreeSet::new();
    let mut records = 0;
    while let Some(next) = log.next_record().expect("readable") {
        addresses.insert(next.expect("every line is readable").address);
        records += 1;
    }
    assert_eq!((records, addresses.len(), log.mark().lines), (10_000, 1_753, 10_000));
}

#[test]
fn a_line_becomes_a_record_without_its_query() {
    let text = br#"2001:db8::7 - anna [17/May/2015:10:05:03 +0000] "GET /admin/x?token=secret HTTP/1.1" 200 12 "-" "curl/8""#;
    let sensitive = sensitive();
    let mut log = AccessLog::new(&text[..], &sensitive).expect("readable");
    let record = log.next_record().expect("readable").expect("one line").expect("a record");
    assert_eq!(record.at, 1_431_857_103_000_000);
    assert_eq!(record.address.to_string(), "2001:db8::7");
    assert_eq!((record.method.as_str(), record.path.as_str()), ("GET", "/admin/x"));
    assert_eq!((record.status, record.verdict), (200, RecordVerdict::Allowed));
    assert!(record.sensitive);
    assert_eq!(record.identity.as_deref(), Some("anna"));
    assert_eq!(record.user_agent.as_deref(), Some("curl/8"));
}

#[test]
fn a_claimed_name_is_no_identity() {
    let text = line(1).replace("- - [", "- anna [").replace(" 200 ", " 401 ");
    let sensitive = sensitive();
    let mut log = AccessLog::new(text.as_bytes(), &sensitive).expect("readable");
    let record = log.next_record().expect("readable").expect("one line").expect("a record");
    assert_eq!(record.identity, None);
}

#[test]
fn a_request_that_is_no_http_is_still_one_of_its_address() {
    let handshake = r#"192.0.2.7 - - [17/May/2015:10:05:03 +0000] "\x16\x03\x01\x02" 400 157"#;
    let nothing = r#"192.0.2.7 - - [17/May/2015:10:05:03 +0000] "-" 408 -"#;
    let sensitive = sensitive();
    let text = format!("{handshake}\n{nothing}\n");
    let mut log = AccessLog::new(text.as_bytes(), &sensitive).expect("readable");
    for path in ["%16%03%01%02", "-"] {
        let record = log.next_record().expect("readable").expect("a line").expect("a record");
        assert_eq!((record.method.as_str(), record.path.as_str()), ("-", path));
    }
}

#[test]
fn unreadable_lines_are_told_by_number_and_stop_nothing() {
    let text = format!("{}\nnonsense \x1b[31m\n\r\n{}\r\nhost.example - -\n", line(1), line(2));
    let (paths, unreadable, mark) = read_all(text.as_bytes(), None);
    assert_eq!(paths, ["/1", "/2"]);
    assert_eq!(unreadable, [2, 5]);
    assert_eq!((mark.lines, mark.length), (5, text.len() as u64));

    let sensitive = sensitive();
    let mut log = AccessLog::new(&b"nonsense \x1b[31m\n"[..], &sensitive).expect("readable");
    let error = log.next_record().expect("readable").expect("a line").expect_err("no record");
    assert_eq!(
        error.to_string(),
        "line 1 does not begin with an address: nonsense \\x1b[31m",
        "nothing in a file reaches a terminal raw"
    );
}

/// Found by the fuzz target `access_log_line`.
#[test]
fn half_a_line_break_at_the_end_is_no_line() {
    let torn = format!("{}\r\n\r", line(1));
    let (paths, unreadable, mark) = read_all(torn.as_bytes(), None);
    assert_eq!((paths.len(), unreadable, mark.lines), (1, vec![], 1));
    let grown = format!("{torn}\n{}\r\n", line(2));
    assert_eq!(read_all(grown.as_bytes(), Some(mark)).0, ["/2"]);
}

#[test]
fn a_line_beyond_64_kib_is_passed_over() {
    let long = "x".repeat(300_000);
    let text = format!("{}\n{long}\n{}\n", line(1), line(2));
    let (paths, unreadable, mark) = read_all(text.as_bytes(), None);
    assert_eq!((paths, unreadable), (vec!["/1".to_owned(), "/2".to_owned()], vec![2]));
    assert_eq!((mark.lines, mark.length), (3, text.len() as u64));
}

#[test]
fn gzip_is_recognised_and_may_have_several_members() {
    let plain = format!("{}\n{}\n", line(1), line(2));
    let mut two = gzip(format!("{}\n", line(1)).as_bytes());
    two.extend(gzip(format!("{}\n", line(2)).as_bytes()));
    assert_eq!(read_all(&two, None), read_all(plain.as_bytes(), None));
    assert_eq!(read_all(b"", None).0, Vec::<String>::new());
}

#[test]
fn a_gzip_file_that_was_cut_off_gives_what_it_has() {
    let text: String = (0..3_000).map(|at| line(at % 60) + "\n").collect();
    let whole = gzip(text.as_bytes());
    let sensitive = sensitive();
    let cut = &whole[..whole.len() / 2];
    let mut log = AccessLog::new(cut, &sensitive).expect("readable");
    let error = loop {
        match log.next_record() {
            Ok(next) => drop(next.expect("no clean end").expect("a record")),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let mark = log.mark();
    assert!(mark.lines > 0);
    let known = longest_known(whole.as_slice(), vec![mark]).expect("readable");
    assert_eq!(known, Some(mark), "the whole file goes on where the other one ended");
}

#[test]
fn the_same_bytes_are_known_however_they_are_packed() {
    let text = format!("{}\n{}\n", line(1), line(2));
    let (_, _, mark) = read_all(text.as_bytes(), None);
    for same in [text.clone().into_bytes(), gzip(text.as_bytes())] {
        assert_eq!(longest_known(same.as_slice(), vec![mark]).expect("readable"), Some(mark));
        let (paths, unreadable, again) = read_all(&same, Some(mark));
        assert_eq!((paths.len(), unreadable.len(), again), (0, 0, mark));
    }
}

#[test]
fn a_grown_file_has_only_its_new_lines_left() {
    let old = format!("{}\n{}\n", line(1), line(2));
    let grown = format!("{old}{}\n", line(3));
    let marks = vec![read_all(old.as_bytes(), None).2, read_all(line(9).as_bytes(), None).2];
    let known = longest_known(grown.as_bytes(), marks).expect("readable");
    let (paths, _, mark) = read_all(grown.as_bytes(), known);
    assert_eq!((paths, mark.lines), (vec!["/3".to_owned()], 3));
    assert_eq!(mark, read_all(grown.as_bytes(), None).2);
}

#[test]
fn the_longest_known_beginning_counts() {
    let (one, two) = (format!("{}\n", line(1)), format!("{}\n{}\n", line(1), line(2)));
    let marks = [&two, &one].map(|text| read_all(text.as_bytes(), None).2);
    let known = longest_known(two.as_bytes(), marks.to_vec()).expect("readable");
    assert_eq!(known, Some(marks[0]));
}

#[test]
fn another_file_of_the_same_length_is_not_known() {
    let (_, _, mark) = read_all(format!("{}\n", line(1)).as_bytes(), None);
    let other = format!("{}\n", line(2));
    assert_eq!(longest_known(other.as_bytes(), vec![mark]).expect("readable"), None);
    let sensitive = sensitive();
    let mut log = AccessLog::new(other.as_bytes(), &sensitive).expect("readable");
    assert!(!log.skip_to(&mark).expect("readable"));
}

#[test]
fn a_record_whose_line_break_came_later_counts_once() {
    let torn = format!("{}\n{}", line(1), line(2));
    let (paths, _, mark) = read_all(torn.as_bytes(), None);
    assert_eq!((paths.len(), mark.lines), (2, 2), "a last line needs no line break");
    for (rest, new) in [("", vec![]), ("\n", vec![]), ("34 \"-\" \"curl\"\n", vec!["/3"])] {
        let grown = match rest.len() {
            0 | 1 => format!("{torn}{rest}"),
            _ => format!("{torn}{rest}{}\n", line(3)),
        };
        let known = longest_known(grown.as_bytes(), vec![mark]).expect("readable");
        assert_eq!(known, Some(mark));
        assert_eq!(read_all(grown.as_bytes(), known).0, new, "after {rest:?}");
    }
}

#[test]
fn a_line_that_was_unreadable_while_it_was_written_is_read_when_it_is_whole() {
    let whole = format!("{}\n{}\n", line(1), line(2));
    let torn = &whole[..whole.len() - 20];
    let (paths, unreadable, mark) = read_all(torn.as_bytes(), None);
    assert_eq!((paths.len(), unreadable, mark.lines), (1, vec![2], 1));
    let known = longest_known(whole.as_bytes(), vec![mark]).expect("readable");
    assert_eq!(read_all(whole.as_bytes(), known).0, ["/2"]);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_lose_count(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(b"\n \"\\x-[]:/1".to_vec())], 0..400)
    ) {
        prop_assume!(!bytes.starts_with(&[0x1f, 0x8b]));
        let breaks = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let (_, _, mark) = read_all(&bytes, None);
        prop_assert!(mark.lines == breaks || mark.lines == breaks + 1);
        prop_assert!(mark.length <= bytes.len() as u64);
    }

    #[test]
    fn bytes_around_a_real_line_never_make_it_panic(
        junk in ".{0,60}", at in 0_usize..200,
    ) {
        let mut text = line(1) + r#" "-" "agent""#;
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.insert_str(at, &junk);
        read_all(text.as_bytes(), None);
    }

    #[test]
    fn a_file_read_in_two_goes_is_the_file_read_in_one(
        kinds in proptest::collection::vec(0..4_u8, 1..20), cut in any::<prop::sample::Index>(),
    ) {
        let text: String = kinds.iter().enumerate().map(|(at, kind)| match kind {
            0 => "\n".to_owned(),
            1 => "nonsense\n".to_owned(),
            _ => line(at) + "\n",
        }).collect();
        // Cut anywhere but inside a record that is readable without its end.
        let breaks: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        let cut = breaks[cut.index(breaks.len())];
        let (mut first, _, mark) = read_all(&text.as_bytes()[..cut], None);
        let (second, _, end) = read_all(text.as_bytes(), Some(mark));
        first.extend(second);
        let (whole, _, whole_end) = read_all(text.as_bytes(), None);
        prop_assert_eq!(first, whole);
        prop_assert_eq!(end, whole_end);
    }
}

/// What a line comes to: time, address, method, path, status, user, agent and place.
fn told(line: &str, format: Option<Format>) -> Result<String, String> {
    let sensitive = sensitive();
    let text = format!("{line}\n");
    let mut log = AccessLog::new(text.as_bytes(), &sensitive).expect("readable").written_as(format);
    let next = log.next_told().expect("readable").expect("one line");
    let Told { record, place } = next.map_err(|error| error.to_string())?;
    let place = place.map(|place| format!(" {:?} {:?} {:?}", place.country, place.city, place.asn));
    Ok(format!(
        "{} {} {} {} {} {:?} {:?}{}",
        record.at,
        record.address,
        record.method,
        record.path,
        record.status,
        record.identity.as_deref().unwrap_or("-"),
        record.user_agent.as_deref().unwrap_or("-"),
        place.unwrap_or_default(),
    ))
}

#[test]
fn logs_of_other_servers_are_recognised_and_say_the_same() {
    let at = "1792758180123456";
    for (name, line, expected) in [
        (
            "Caddy",
            r#"{"level":"info","ts":1792758180.123456,"logger":"http.log.access.log0","msg":"handled request","request":{"remote_ip":"10.0.0.1","remote_port":"41342","client_ip":"192.0.2.7","proto":"HTTP/2.0","method":"GET","host":"example.com","uri":"/admin?x=1","headers":{"User-Agent":["curl/8"],"Accept":["*/*"]}},"bytes_read":0,"user_id":"anna","duration":0.000929675,"size":10900,"status":404,"resp_headers":{}}"#,
            format!("{at} 192.0.2.7 GET /admin 404 \"anna\" \"curl/8\""),
        ),
        (
            "Traefik",
            r#"{"ClientAddr":"192.0.2.7:4242","ClientHost":"192.0.2.7","ClientPort":"4242","ClientUsername":"-","DownstreamContentSize":19,"DownstreamStatus":404,"Duration":100,"OriginStatus":0,"RequestMethod":"GET","RequestPath":"/admin?x=1","RequestProtocol":"HTTP/1.1","StartUTC":"2026-10-23T12:23:00.123456789Z","entryPointName":"web","level":"info","msg":"","request_User-Agent":"curl/8","time":"2026-10-23T12:23:01Z"}"#,
            format!("{at} 192.0.2.7 GET /admin 404 \"-\" \"curl/8\""),
        ),
        (
            "Traefik's text",
            r#"192.0.2.7 - - [23/Oct/2026:12:23:00 +0000] "GET /admin HTTP/1.1" 404 19 "-" "curl/8" 5 "web@file" "http://10.0.0.2:80" 3ms"#,
            "1792758180000000 192.0.2.7 GET /admin 404 \"-\" \"curl/8\"".to_owned(),
        ),
        (
            "nginx, by parts",
            r#"{"time_iso8601":"2026-10-23T12:23:00+00:00","remote_addr":"192.0.2.7","remote_user":"","request_method":"GET","request_uri":"/admin?x=1","status":"404","http_user_agent":"curl\/8"}"#,
            "1792758180000000 192.0.2.7 GET /admin 404 \"-\" \"curl/8\"".to_owned(),
        ),
        (
            "nginx, by request line",
            r#"{"time_local":"23/Oct/2026:12:23:00 +0000","remote_addr":"2001:db8::7","request":"POST /a\"b HTTP/1.1","status":201}"#,
            "1792758180000000 2001:db8::7 POST /a\"b 201 \"-\" \"-\"".to_owned(),
        ),
        (
            "AWS's balancer",
            r#"https 2026-10-23T12:23:00.123456Z app/my-lb/50dc6c495c0c9188 192.0.2.7:2817 10.0.0.1:80 0.086 0.048 0.037 404 404 0 57 "GET https://www.example.com:443/admin?x=1 HTTP/1.1" "curl/8" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws "Root=1-58337281-1d84f3d73c47ec4e58577259" "www.example.com" "arn:aws" 1 2018-07-02T22:22:48.364000Z "authenticate,forward" "-" "-" "10.0.0.1:80" "200" "-" "-""#,
            "1792758180123456 192.0.2.7 GET /admin 404 \"-\" \"curl/8\"".to_owned(),
        ),
        (
            "our own",
            r#"{"at":"2026-10-23T12:23:00.123456Z","address":"192.0.2.7","method":"GET","path":"/admin","status":404,"verdict":"allowed","identity":null,"country":"SE","city":"Uppsala","asn":64496,"user_agent":null}"#,
            "1792758180123456 192.0.2.7 GET /admin 404 \"-\" \"-\" Some(SE) Some(\"Uppsala\") Some(64496)"
                .to_owned(),
        ),
    ] {
        assert_eq!(told(line, None).as_deref(), Ok(&*expected), "{name}");
    }
}

#[test]
fn a_line_of_json_that_is_no_request_says_what_is_missing() {
    for (line, says) in [
        ("{", "is no JSON object"),
        (r#"{"level":"info","msg":"serving"}"#, "has no field with the client's address"),
        (r#"{"remote_addr":"unix:"}"#, "has no field with the client's address"),
        (r#"{"remote_addr":"0.0.0.0"}"#, "has no field with the client's address"),
        (r#"{"remote_addr":"192.0.2.1","time":"soon"}"#, "has no field with its time"),
        (r#"{"remote_addr":"192.0.2.1","ts":1e300}"#, "has no field with its time"),
        (r#"{"remote_addr":"192.0.2.1","ts":1,"status":"many"}"#, "has no status"),
    ] {
        let error = told(line, None).expect_err("no record");
        assert!(error.contains(says), "{line}: {error}");
    }
    let forced = told(
        r#"192.0.2.1 - - [23/Oct/2026:12:23:00 +0000] "GET / HTTP/1.1" 200 1"#,
        Some(Format::Json),
    );
    assert!(forced.expect_err("no record").contains("is no JSON object"));
    let torn = told("http 2026-10-23T12:23:00.123456Z app/my-lb/50dc 192.0.2.7:2817 -", None);
    assert!(torn.expect_err("no record").contains("has no status"));
}

#[test]
fn a_growing_file_gives_a_line_when_it_is_whole() {
    use std::io::Write;
    let path = tempfile::NamedTempFile::new().expect("a file");
    let line = b"192.0.2.1 - - [17/May/2015:10:05:03 +0000] \"GET /a HTTP/1.1\" 200 5\n";
    let sensitive = SensitivePaths::default();
    let source = std::fs::File::open(path.path()).expect("the file");
    let mut log = AccessLog::new(source, &sensitive).expect("readable").growing();
    let write = |bytes: &[u8]| path.as_file().write_all(bytes).expect("room");
    assert!(log.next_record().expect("readable").is_none());
    write(&line[..60]);
    assert!(log.next_record().expect("readable").is_none(), "it is being written");
    let mark = log.mark();
    assert_eq!((mark.length, mark.lines), (0, 0));
    write(&line[60..]);
    write(&line[..10]);
    let record = log.next_record().expect("readable").expect("a line").expect("a record");
    assert_eq!(record.path, "/a");
    assert_eq!(log.mark().length, line.len() as u64);
    assert!(log.next_record().expect("readable").is_none());
    write(&line[10..]);
    assert!(log.next_record().expect("readable").expect("a line").is_ok());
    assert_eq!(log.mark().lines, 2);
}
