use super::*;

fn told(text: &str, format: Option<Format>) -> Result<Vec<String>, String> {
    let items = read(text.as_bytes(), format).map_err(|error| error.to_string())?;
    let told = items.into_iter().map(|item| {
        let mut told = item.target.network.to_string();
        if let Some(reason) = item.reason {
            told += &format!(" ({reason})");
        }
        if let Some(ends) = item.ends {
            told += &format!(" until {}", ends.to_rfc3339());
        }
        told
    });
    Ok(told.collect())
}

#[test]
fn every_format_is_recognised_and_read() {
    let two = ["192.0.2.1", "2001:db8::/32"];
    for (text, format) in [
        ("192.0.2.1\n2001:db8::/32\n", Format::Plain),
        ("\u{feff}# a, b\r\n192.0.2.1 ; SBL1, x\r\n\r\n  2001:db8::/32 # y\r\n", Format::Plain),
        ("192.0.2.1,x\n2001:db8::/32,y\n", Format::Csv),
        ("1,192.0.2.1,x\n2,2001:db8::/32,y\n", Format::Csv),
        ("# list\nid,\"Network\"\n1,192.0.2.1\n2,2001:db8::/32\n", Format::Csv),
        ("ip\n192.0.2.1\n2001:db8::/32\n", Format::Csv),
        ("[\"192.0.2.1\",\n \"2001:db8::/32\"]", Format::Json),
        ("[{\"ip\": \"192.0.2.1\"}, \"2001:db8::/32\"]", Format::Json),
        ("{\"network\":\"192.0.2.1\"}\n{\"network\":\"2001:db8::/32\"}\n", Format::Json),
        ("{\"next\": null, \"items\": [\"192.0.2.1\", \"2001:db8::/32\"]}", Format::Json),
    ] {
        assert_eq!(recognise(text.trim_start_matches('\u{feff}')), format, "{text}");
        assert_eq!(told(text, None).unwrap(), two, "{text}");
        assert_eq!(told(text, Some(format)).unwrap(), two, "{text}");
    }
    for nothing in ["", "\n\n", "# nothing\n", "[]", "network\n"] {
        assert_eq!(told(nothing, None).unwrap(), [""; 0], "{nothing:?}");
    }
}

#[test]
fn reasons_and_ends_are_read_where_columns_are_named() {
    let one = ["192.0.2.1 (scraping, twice) until 2026-11-22T17:00:00+00:00"];
    for text in [
        "network,expires_at,reason\n192.0.2.1,2026-11-22T17:00:00Z,\"scraping, twice\"\n",
        "reason,ip,until\n\"scraping, twice\",192.0.2.1,2026-11-22 17:00:00\n",
        "[{\"network\":\"192.0.2.1\",\"reason\":\"scraping, twice\",\
         \"expires_at\":\"2026-11-22T18:00:00+01:00\"}]",
        "[{\"network\":\"192.0.2.1\",\"comment\":\"scraping,\\ntwice\",\
         \"expires_at\":\"2026-11-22T17:00:00Z\"}]",
    ] {
        assert_eq!(told(text, None).unwrap(), one, "{text}");
    }
    let open = "network,expires_at,reason\n192.0.2.1,,\n";
    assert_eq!(told(open, None).unwrap(), ["192.0.2.1"]);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, says) in [
        ("192.0.2.1\n\n192.0.2.256\n", "line 3: `192.0.2.256` is no IPv4 address"),
        ("192.0.2.1-192.0.2.9\n", "line 1: `192.0.2.1-192.0.2.9` is more than one address"),
        ("network,reason\n192.0.2.1,x\nexample.com,y\n", "line 3: `example.com` is no address"),
        ("network,until\n192.0.2.1,soon\n", "line 2: `soon` is no end"),
        ("name,score\nx,1\n", "line 1: no column holds the networks: the header names name, score"),
        ("[\n\"192.0.2.1\",\n\"x\"\n]", "line 3: `x` is no address"),
        ("[\n\"192.0.2.1\"\n\"192.0.2.2\"]", "line 3: a `,` or the `]`"),
        ("[\n\"192.0.2.1\",\n", "line 3: the list does not end"),
        ("[\"192.0.2.1\",\n{\"a\": }]", "line 2: no JSON"),
        ("{\"a\": 1}", "line 1: the document is no list"),
        ("[7]", "line 1: an entry is a text"),
        ("[{\"reason\": \"x\"}]", "line 1: the object has no text `network`"),
    ] {
        let error = told(text, None).unwrap_err();
        assert!(error.contains(says), "{text:?}: {error}");
    }
    let error = told(&"x.example\n".repeat(25), None).unwrap_err();
    assert_eq!(error.lines().last(), Some("and 15 more"));
}

#[test]
fn no_bytes_make_it_panic() {
    for bytes in [&b"\xff\xfe\x00"[..], b"[", b"{", b"\"", b",,,\n", b"\"a\nb", b"[[[[", b"{}"] {
        for format in [None, Some(Format::Plain), Some(Format::Csv), Some(Format::Json)] {
            let _ = read(bytes, format);
        }
    }
}
