use super::*;
use rstest::rstest;

const AT: i64 = 1_431_857_103_000_000;
const DATE: &str = "[17/May/2015:10:05:03 +0000]";

fn text<'a>(bytes: &'a Option<Cow<'_, [u8]>>) -> Option<&'a str> {
    bytes.as_deref().map(|bytes| std::str::from_utf8(bytes).expect("ASCII"))
}

#[test]
fn a_combined_line_is_taken_apart() {
    let line = format!(
        r#"192.0.2.7 - - {DATE} "GET /a/b.png?x=1 HTTP/1.1" 200 203023 "http://example.com/" "Mozilla/5.0 (X11)""#
    );
    let line = parse(line.as_bytes()).expect("readable");
    assert_eq!(line.at, AT);
    assert_eq!(line.address.to_string(), "192.0.2.7");
    assert_eq!(line.user, None);
    assert_eq!(&*line.request, b"GET /a/b.png?x=1 HTTP/1.1");
    assert_eq!(line.status, 200);
    assert_eq!(text(&line.user_agent), Some("Mozilla/5.0 (X11)"));
}

#[test]
fn a_common_line_has_no_user_agent() {
    let line = format!(r#"2001:db8::7 - anna {DATE} "HEAD / HTTP/1.0" 304 -"#);
    let line = parse(line.as_bytes()).expect("readable");
    assert_eq!(line.address.to_string(), "2001:db8::7");
    assert_eq!(text(&line.user), Some("anna"));
    assert_eq!((line.status, line.user_agent), (304, None));
}

#[test]
fn a_mapped_address_is_the_ipv4_address() {
    let line = format!(r#"::ffff:192.0.2.7 - - {DATE} "GET / HTTP/1.1" 200 1"#);
    assert_eq!(parse(line.as_bytes()).expect("readable").address.to_string(), "192.0.2.7");
}

#[rstest]
#[case::spaces("anna maria", "anna maria")]
#[case::forged(
    r"x [01/Jan/2001:00:00:00 +0000] \x22GET /forged HTTP/1.1\x22 200 1",
    "x [01/Jan/2001:00:00:00 +0000] \"GET /forged HTTP/1.1\" 200 1"
)]
#[case::forged_for_apache(
    r#"x [01/Jan/2001:00:00:00 +0000] \"GET /forged HTTP/1.1\" 200 1"#,
    "x [01/Jan/2001:00:00:00 +0000] \"GET /forged HTTP/1.1\" 200 1"
)]
#[case::backslash_before_the_date(r"x\\", r"x\")]
fn whatever_a_user_calls_himself_stays_a_name(#[case] logged: &str, #[case] user: &str) {
    let line = format!(r#"192.0.2.7 - {logged} {DATE} "GET / HTTP/1.1" 200 1"#);
    let line = parse(line.as_bytes()).expect("readable");
    assert_eq!(text(&line.user), Some(user));
    assert_eq!((line.at, &*line.request), (AT, &b"GET / HTTP/1.1"[..]));
}

#[rstest]
#[case::nobody("- -")]
#[case::empty_in_nginx("- ")]
#[case::empty_in_apache("- \"\"")]
#[case::missing("-")]
fn a_line_without_a_user_has_none(#[case] names: &str) {
    let line = format!(r#"192.0.2.7 {names} {DATE} "GET / HTTP/1.1" 200 1"#);
    assert_eq!(parse(line.as_bytes()).expect("readable").user, None);
}

#[test]
fn escapes_of_both_servers_are_undone() {
    let line = format!(
        r#"192.0.2.7 - - {DATE} "GET /\x22\"\\\xe4\t\q HTTP/1.1" 200 1 "-" "a \"quoted\" agent""#
    );
    let line = parse(line.as_bytes()).expect("readable");
    assert_eq!(&*line.request, b"GET /\"\"\\\xe4\t\\q HTTP/1.1");
    assert_eq!(text(&line.user_agent), Some("a \"quoted\" agent"));
}

#[test]
fn a_user_agent_that_was_cut_off_is_what_is_left_of_it() {
    let line = format!(r#"192.0.2.7 - - {DATE} "GET / HTTP/1.1" 200 1 "-" "Mozilla/5.0 (comp"#);
    let line = parse(line.as_bytes()).expect("readable");
    assert_eq!(text(&line.user_agent), Some("Mozilla/5.0 (comp"));
}

#[test]
fn fields_after_the_user_agent_are_ignored() {
    let line =
        format!(r#"192.0.2.7 - - {DATE} "GET / HTTP/1.1" 200 1 "-" "curl/8" "198.51.100.1" 0.003"#);
    assert_eq!(text(&parse(line.as_bytes()).expect("readable").user_agent), Some("curl/8"));
}

#[rstest]
#[case(
    r#"www.example.com - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#,
    Unreadable::Address
)]
#[case(r#"unix: - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#, Unreadable::Address)]
#[case(
    r#"192.0.2.07 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#,
    Unreadable::Address
)]
#[case("192.0.2.7", Unreadable::Address)]
#[case("", Unreadable::Address)]
#[case(r#"192.0.2.7 - - "GET / HTTP/1.1" 200 1"#, Unreadable::Date)]
#[case(r#"192.0.2.7 - - [99/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#, Unreadable::Date)]
#[case(r#"192.0.2.7 - - [17/May/2015:10:05:03 +0000] GET / HTTP/1.1 200 1"#, Unreadable::Date)]
#[case(r#"192.0.2.7 - - [17/May/2015:10:05:03 +0000] "GET / HT"#, Unreadable::Request)]
#[case(r#"192.0.2.7 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1""#, Unreadable::Status)]
#[case(r#"192.0.2.7 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" OK 1"#, Unreadable::Status)]
#[case(r#"192.0.2.7 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200"#, Unreadable::Size)]
#[case(r#"192.0.2.7 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 x"#, Unreadable::Size)]
fn what_cannot_be_read_says_what_is_missing(#[case] line: &str, #[case] reason: Unreadable) {
    assert_eq!(parse(line.as_bytes()).expect_err("unreadable"), reason);
}

#[rstest]
#[case(b"GET /a HTTP/1.1", Some(("GET", "/a")))]
#[case(b"GET /a", Some(("GET", "/a")))]
#[case(b"GET /a b HTTP/1.1", Some(("GET", "/a b")))]
#[case(b"OPTIONS * HTTP/1.1", Some(("OPTIONS", "*")))]
#[case(b"-", None)]
#[case(b"", None)]
#[case(b"GET", None)]
#[case(b"GET  HTTP/1.1", None)]
#[case(b"\x16\x03\x01\x02\x00 \x01", None)]
fn a_request_line_has_a_method_and_a_target_or_is_none(
    #[case] request: &[u8],
    #[case] parts: Option<(&str, &str)>,
) {
    let parts = parts.map(|(method, target)| (method.as_bytes(), target.as_bytes()));
    assert_eq!(method_and_target(request), parts);
}

#[rstest]
#[case("/a/b?x=1", "/a/b")]
#[case("/a%3Fb#c", "/a%3Fb")]
#[case("http://example.com/admin?x", "/admin")]
#[case("HTTPS://example.com", "/")]
#[case("http://example.com?x=/admin", "/")]
#[case("example.com:443", "example.com:443")]
#[case("*", "*")]
fn a_path_has_neither_authority_nor_query(#[case] target: &str, #[case] path: &str) {
    assert_eq!(path_of(target.as_bytes()), path.as_bytes());
}
