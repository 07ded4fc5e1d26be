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
