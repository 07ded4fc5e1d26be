use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn request<'a>(path: &'a [u8], user_agent: Option<&'a [u8]>) -> RecordRef<'a> {
    RecordRef {
        at: 1_764_000_000_000_000,
        address: "192.0.2.7".parse().unwrap(),
        method: b"GET",
        path,
        status: 200,
        verdict: RecordVerdict::Allowed,
        sensitive: false,
        identity: None,
        user_agent,
        reference: Reference::random(),
    }
}

fn body(record: &RecordRef<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    record.encode(&mut body);
    body
}

#[test]
fn a_path_keeps_its_escapes_and_loses_its_query_and_fragment() {
    let check = |raw: &[u8], expected: &str| assert_eq!(escape_path(raw), expected);
    check(b"/a/b%20c", "/a/b%20c");
    check(b"/a?token=secret", "/a");
    check(b"/a#part", "/a");
    check(b"/%22%20%1B%5b31m%0d%0afake", "/%22%20%1B%5b31m%0d%0afake");
    check(b"/a b\0\r\n\x7f\xff", "/a%20b%00%0D%0A%7F%FF");
    check(b"", "");
    check(b"*", "*");
}

#[test]
fn a_cut_never_leaves_half_an_escape() {
    for padding in MAX_PATH - 4..=MAX_PATH {
        let mut raw = vec![b'a'; padding];
        raw.extend(b"%41\xff%zz");
        raw.extend(vec![b'b'; 60_000]);
        let path = escape_path(&raw);
        let expected = match MAX_PATH - padding {
            4 => "%41".to_owned(),
            3 => "%41".to_owned(),
            _ => String::new(),
        };
        assert_eq!(path, "a".repeat(padding) + &expected, "{padding} bytes before the escape");
    }
}

#[test]
fn user_agents_keep_spaces_and_methods_do_not() {
    assert_eq!(escape_user_agent("Mozilla/5.0 (é)\t".as_bytes()), "Mozilla/5.0 (%C3%A9)%09");
    assert_eq!(escape_method(b"GE T\n"), "GE%20T%0A");
    assert_eq!(escape_method(&[b'X'; 100]).len(), MAX_METHOD);
    assert_eq!(escape_user_agent(&[0xff; 10_000]).len(), MAX_USER_AGENT - MAX_USER_AGENT % 3);
}

#[test]
fn an_identity_keeps_its_letters_and_escapes_what_would_rewrite_the_line() {
    assert_eq!(escape_identity("zoë 王"), "zoë 王");
    assert_eq!(escape_identity("a\0b\u{1b}[31m\u{202e}c"), "a%00b%1B[31m%E2%80%AEc");
    assert_eq!(escape_identity(&"王".repeat(200)).len(), MAX_IDENTITY - 1);
}

#[test]
fn a_reference_reads_back_however_it_is_typed() {
    let reference = Reference::random();
    assert_eq!(reference.to_string().parse(), Ok(reference));
    assert_eq!(reference.to_string().to_lowercase().parse(), Ok(reference));
    assert_eq!("oOiIlL000000".parse::<Reference>(), "001111000000".parse());
    for wrong in ["", "00000000000", "0000000000000", "U00000000000", "é0000000000", "00000000000 "]
    {
        assert_eq!(wrong.parse::<Reference>(), Err(ReferenceError), "{wrong:?}");
    }
    assert_eq!(Reference::from_bits(1 << 60), None);
}

#[test]
fn the_body_of_version_1_stays_as_it_is() {
    let record = RecordRef {
        at: 0x0102_0304_0506_0708,
        status: 0x0194,
        verdict: RecordVerdict::Throttled,
        sensitive: true,
        identity: Some("me"),
        reference: Reference::from_bits(5).unwrap(),
        ..request(b"/a", Some(b"curl"))
    };
    let expected = b"\x01\x1e\x94\x01\x08\x07\x06\x05\x04\x03\x02\x01\xc0\x00\x02\x07\
        \x05\0\0\0\0\0\0\0\x03\0GET\x02\0/a\x02\0me\x04\0curl";
    assert_eq!(body(&record), expected);
}

#[test]
fn what_is_wrong_with_a_body_is_said_precisely() {
    let good = body(&request(b"/", None));
    for end in 0..good.len() {
        let error = Record::decode(&good[..end]).unwrap_err();
        assert!(matches!(error, RecordError::Truncated(_)), "{end}: {error}");
    }
    let changed = |at: usize, byte: u8| {
        let mut body = good.clone();
        body[at] = byte;
        Record::decode(&body).unwrap_err()
    };
    assert_eq!(changed(0, 2), RecordError::Version(2));
    assert_eq!(changed(1, 0b11), RecordError::Flags(0b11));
    assert_eq!(changed(1, 1 << 7), RecordError::Flags(1 << 7));
    assert_eq!(changed(23, 0xff), RecordError::Reference);
    assert_eq!(changed(24, 33), RecordError::TooLong("method"));
    assert_eq!(changed(26, b'\n'), RecordError::Unescaped("method"));
    assert_eq!(changed(31, 0), RecordError::Unescaped("path"));
    assert_eq!(changed(31, b'?'), RecordError::Query);
    let address = "2001:db8::7".parse().unwrap();
    let mut mapped = body(&RecordRef { address, ..request(b"/", None) });
    mapped[12..28].copy_from_slice(&Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().octets());
    assert_eq!(Record::decode(&mapped), Err(RecordError::Address), "nobody would find it");
    let long = [good.as_slice(), &[0]].concat();
    assert_eq!(Record::decode(&long), Err(RecordError::Trailing(1)));
}

proptest! {
    #[test]
    fn any_bytes_of_a_client_come_back_as_their_escaped_text(
        (at, v6, address) in (any::<i64>(), any::<bool>(), any::<u128>()),
        method in vec(any::<u8>(), 0..60),
        path in vec(any::<u8>(), 0..5000),
        (status, verdict, sensitive) in (any::<u16>(), 0..3usize, any::<bool>()),
        identity in option::of(any::<String>()),
        user_agent in option::of(vec(any::<u8>(), 0..900)),
        bits in 0..1u64 << 60,
    ) {
        let address = if v6 {
            IpAddr::V6(address.into())
        } else {
            IpAddr::V4((address as u32).into())
        };
        let record = RecordRef {
            at,
            address,
            method: &method,
            path: &path,
            status,
            verdict: RecordVerdict::ALL[verdict],
            sensitive,
            identity: identity.as_deref(),
            user_agent: user_agent.as_deref(),
            reference: Reference::from_bits(bits).unwrap(),
        };
        let body = body(&record);
        prop_assert!(body.len() <= MAX_BODY);
        prop_assert_eq!(Record::decode(&body), Ok(Record::from(&record)));
    }

    #[test]
    fn escaping_twice_changes_nothing(path in vec(any::<u8>(), 0..5000), identity in any::<String>()) {
        let once = escape_path(&path);
        prop_assert_eq!(escape_path(once.as_bytes()), once);
        let once = escape_identity(&identity);
        prop_assert_eq!(escape_identity(&once), once);
    }

    #[test]
    fn decoding_arbitrary_bytes_never_panics(
        bytes in vec(any::<u8>(), 0..200),
        at in 0..60usize,
        byte in any::<u8>(),
    ) {
        let _ = Record::decode(&bytes);
        let mut body = body(&request(b"/some/path", Some(b"an agent")));
        if let Some(place) = body.get_mut(at) {
            *place = byte;
        }
        if let Ok(record) = Record::decode(&body) {
            prop_assert!(record.path.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
        }
    }
}
