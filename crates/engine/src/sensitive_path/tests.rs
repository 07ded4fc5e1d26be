use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::clock::Moment;

#[rstest]
#[case::upper_case("/LogIn")]
#[case::below("/login/reset/x")]
#[case::query_with_slashes("/admin?next=/public/../x")]
#[case::fragment("/admin#top")]
#[case::absolute_upper_case("HTTP://EXAMPLE.TEST/ADMIN")]
#[case::absolute_with_port("https://example.test:8443/login?x")]
#[case::absolute_with_user("http://user:pass@example.test/x/../admin")]
#[case::absolute_with_backslash("http://example.test\\admin")]
#[case::network_path("//example.test/admin")]
#[case::network_path_with_port("//localhost:80/admin")]
#[case::relative("admin")]
#[case::many_slashes("////admin")]
#[case::slash_after("/admin//")]
#[case::slash_behind_dots("/x//../..//admin")]
#[case::beyond_the_root("/../../admin")]
#[case::back_again("/admin/../admin")]
#[case::dot_at_the_end("/admin/.")]
#[case::empty_segment_popped("/admin//../public")]
#[case::encoded_capital("/%41DMIN")]
#[case::lower_case_hexadecimal("/%6cogin")]
#[case::double_whole("/%2561%2564%256d%2569%256e")]
#[case::triple("/%252561dmin")]
#[case::quadruple("/%25252561dmin")]
#[case::nested_digits("/%6%31dmin")]
#[case::percent_before("/%%36%31dmin")]
#[case::double_slash_encoded("/%252fadmin")]
#[case::encoded_slash_behind("/admin%2fusers")]
#[case::double_encoded_dots("/x/%252e%252e/admin")]
#[case::double_encoded_traversal("/x/%252e%252e%252fadmin")]
#[case::mixed_dots("/x/.%2e/admin")]
#[case::encoded_dot("/%2e/admin")]
#[case::unicode_escape("/%U0041dmin")]
#[case::unicode_escape_slash("/%u002fadmin")]
#[case::unicode_escape_dots("/x/%u002e%u002e/admin")]
#[case::unicode_escape_full_width("/%uff41dmin")]
#[case::unicode_escape_division_slash("/x/..%u2215admin")]
#[case::unicode_escape_set_minus("/x/..%u2216admin")]
#[case::unicode_escape_double("/%25u0061dmin")]
#[case::overlong_letter("/%c1%a1dmin")]
#[case::overlong_letter_three("/%e0%81%a1dmin")]
#[case::overlong_slash_three("/%e0%80%afadmin")]
#[case::overlong_slash_four("/%f0%80%80%afadmin")]
#[case::overlong_slash_five("/%f8%80%80%80%afadmin")]
#[case::overlong_slash_six("/%fc%80%80%80%80%afadmin")]
#[case::overlong_dots("/x/%c0%ae%c0%ae/admin")]
#[case::overlong_dots_and_slash("/x/%c0%ae%c0%ae%c0%afadmin")]
#[case::overlong_backslash("/x/..%c1%9cadmin")]
#[case::overlong_unchecked_backslash("/x/..%c1%1cadmin")]
#[case::overlong_unchecked_slash("/x/..%c0%2fadmin")]
#[case::overlong_double_encoded("/%25c0%25afadmin")]
#[case::overlong_percent("/%c0%a561dmin")]
#[case::full_width_word("/\u{ff21}\u{ff24}\u{ff2d}\u{ff29}\u{ff2e}")]
#[case::full_width_slash("/%ef%bc%8fadmin")]
#[case::full_width_dots("/x/%ef%bc%8e%ef%bc%8e/admin")]
#[case::full_width_backslash("/x/..%ef%bc%bcadmin")]
#[case::full_width_percent("/%ef%bc%8561dmin")]
#[case::fraction_slash("/x/..%e2%81%84admin")]
#[case::backslash("\\admin")]
#[case::slash_and_backslash("/\\admin")]
#[case::backslash_behind("/admin\\users")]
#[case::encoded_backslash("/%5cadmin")]
#[case::encoded_backslash_traversal("/x%5c..%5cadmin")]
#[case::backslash_that_is_part_of_a_name("/a\\b%2f..%2fadmin")]
#[case::encoded_slash_that_is_part_of_a_name("/a%2fb%5c..%5cadmin")]
#[case::double_encoded_backslash("/x/..%255cadmin")]
#[case::empty_parameter("/admin;")]
#[case::parameter_below("/admin;x=1/users")]
#[case::encoded_parameter("/admin%3bx")]
#[case::parameter_before("/;/admin")]
#[case::named_parameter_before("/;x=y/admin")]
#[case::parameter_on_dot("/.;/admin")]
#[case::parameter_on_dots("/x/..;a=b/admin")]
#[case::encoded_parameter_on_dots("/x/..%3b/admin")]
#[case::parameter_on_encoded_dots("/x/%2e%2e;/admin")]
#[case::parameter_holds_a_slash("/admin;x%2f..%2f/")]
#[case::parameters_kept_below("/admin;x/..;/public")]
#[case::trailing_dots("/admin...")]
#[case::trailing_dots_below("/admin./users")]
#[case::encoded_trailing_dot("/admin%2e")]
#[case::trailing_dot_and_space("/admin.%20.")]
#[case::trailing_space("/admin ")]
#[case::trailing_space_below("/admin%20/users")]
#[case::leading_space("/%20admin")]
#[case::trailing_no_break_space("/admin%c2%a0")]
#[case::trailing_latin_no_break_space("/admin%a0")]
#[case::trailing_next_line("/admin%85")]
#[case::trailing_ideographic_space("/admin%e3%80%80")]
#[case::nul_and_extension("/admin%00.jpg")]
#[case::nul_and_traversal("/admin%00/../public")]
#[case::nul_inside("/ad%00min")]
#[case::nul_by_unicode_escape("/admin%u0000.jpg")]
#[case::overlong_nul("/admin%c0%80")]
#[case::newline("/admin%0a")]
#[case::line_end_and_more("/admin%0d%0aX-Y:%20z")]
#[case::vertical_tab("/admin%0b")]
#[case::form_feed("/admin%0c")]
#[case::unit_separator("/admin%1f")]
#[case::delete("/admin%7f")]
#[case::newline_inside("/ad%0amin")]
#[case::zero_width_inside("/ad%e2%80%8bmin")]
#[case::byte_order_mark("/%ef%bb%bfadmin")]
#[case::soft_hyphen("/ad%c2%admin")]
#[case::encoded_query("/admin%3fx=1")]
#[case::encoded_query_and_traversal("/admin%3f/../public")]
#[case::encoded_query_is_a_name("/x%3f/../admin")]
#[case::encoded_fragment("/admin%23x")]
#[case::double_encoded_query("/admin%253fx")]
#[case::data_stream("/admin::$DATA")]
#[case::index_stream("/admin:$I30:$INDEX_ALLOCATION/users")]
#[case::index_allocation("/admin::$INDEX_ALLOCATION/users")]
#[case::kept_encoded_traversal("/admin/..%2fpublic")]
#[case::kept_double_encoded_dots("/admin/%252e%252e/public")]
#[case::kept_backslash_traversal("/admin/..\\public")]
#[case::kept_overlong_dots("/%61dmin/%c0%ae%c0%ae/public")]
#[case::kept_dots_and_space("/admin/..%20/public")]
fn some_reader_serves_this_from_a_sensitive_place(#[case] path: &str) {
    assert!(SensitivePaths::default().matches(path), "{path}");
}

#[rstest]
#[case("")]
#[case("*")]
#[case("?")]
#[case("/?/admin")]
#[case("/?/../admin")]
#[case("/#/admin")]
#[case("/%23/admin")]
#[case("/%3f/admin")]
#[case("/search?q=%2e%2e/admin")]
#[case("/x/admin")]
#[case("/x//admin")]
#[case("/x/./login")]
#[case("//x/admin")]
#[case("/x%2fadmin")]
#[case("/x/%2fadmin")]
#[case("/x\\admin")]
#[case("/admin-panel")]
#[case("/admin.php")]
#[case("/admin.html")]
#[case("/admin%2ehtml")]
#[case("/.admin")]
#[case("/admin:80")]
#[case("/admin,x")]
#[case("/admin+x")]
#[case("/admin&x=1")]
#[case("/adminx;y")]
#[case("/login-help")]
#[case("/login_")]
#[case("/logout")]
#[case("/log/in")]
#[case("/log%2fin")]
#[case("/ad%20min")]
#[case("/admin%20panel")]
#[case("/~admin")]
#[case("/@admin/x")]
#[case("/xadmin")]
#[case("/%78admin")]
#[case("/admins")]
#[case("/%61dministrator")]
#[case("/\u{430}dmin")]
#[case("/l\u{3bf}gin")]
#[case("/adm\u{131}n")]
#[case("/admi\u{301}n")]
#[case("/admin\u{e0}")]
#[case("/adminé")]
#[case("/%ef%bd%81dministrator")]
#[case("/admin/..")]
#[case("/admin/../")]
#[case("/admin/./../public")]
#[case("/admin/x/../../public")]
#[case("/admin/../../public")]
#[case("/admin/%2e%2e/public")]
#[case("/admin/.%2E/public")]
#[case("/admin%2f..%2fpublic")]
#[case("/admin\\..\\public")]
#[case("/admin;/../public")]
#[case("/x;/admin/../y")]
#[case("/x/..;/y/admin")]
#[case("/public;/admin")]
#[case("/%")]
#[case("/%6")]
#[case("/%zz")]
#[case("/%u006")]
#[case("/%uzzzz/admin")]
#[case("/%ud800")]
#[case("/%ff")]
#[case("/%c0")]
#[case("/%e0%80")]
#[case("/%c3%a0dmin")]
#[case("http://admin/")]
#[case("http://admin")]
#[case("http://admin:80")]
#[case("http://login.example.test/x")]
#[case("http://admin@example.test/")]
#[case("http://example.test?/admin")]
#[case("http://example.test/x?http://example.test/admin")]
#[case("//admin.example.test/")]
#[case("/http://example.test/admin")]
#[case("admin:443")]
#[case("/.well-known/security.txt")]
#[case("/assets/app.3f2a.js")]
fn no_reader_serves_this_from_a_sensitive_place(#[case] path: &str) {
    assert!(!SensitivePaths::default().matches(path), "{path}");
}

#[test]
fn bytes_of_no_encoding_are_judged_too() {
    let paths = SensitivePaths::default();
    assert!(paths.matches(b"/\xc0\xafadmin"));
    assert!(paths.matches(b"/admin\x00"));
    assert!(paths.matches(b"/admin\xa0"));
    assert!(!paths.matches(b"/\xff\xfe/admin"));
}

#[test]
fn configured_prefixes_are_taken_as_a_person_writes_them() {
    let paths =
        SensitivePaths::new(&["/Wp-Login.php/", "/api/v1/Admin", "grün", "/a%20b", " ", ""]);
    for path in
        ["/wp-login.PHP", "/API//v1/x/../admin/", "/gr%c3%bcn/x", "/a%20b", "/api/%76%31/admin"]
    {
        assert!(paths.matches(path), "{path}");
    }
    for path in ["/", "/api/v1", "/api/admin", "/api/v1/administrator", "/a", "/x/api/v1/admin"] {
        assert!(!paths.matches(path), "{path}");
    }
    assert!(SensitivePaths::new(&["/"]).matches("/anything"));
    assert!(!SensitivePaths::new::<&str>(&[]).matches("/admin"));
}

#[rstest]
#[case("/static/app.js", Coverage::InEveryReading)]
#[case("/static", Coverage::InEveryReading)]
#[case("/stati%63/x", Coverage::InEveryReading)]
#[case("/static/My%20Holiday.jpg", Coverage::InEveryReading)]
#[case("/static/..%2flogin", Coverage::InSomeReadings)]
#[case("/static;x/y", Coverage::InSomeReadings)]
#[case("/%2573tatic", Coverage::InSomeReadings)]
#[case("/static/../login", Coverage::No)]
#[case("/statics", Coverage::No)]
#[case("/x%2fstatic", Coverage::No)]
fn a_prefix_holds_a_path_in_none_some_or_all_readings(
    #[case] path: &str,
    #[case] expected: Coverage,
) {
    assert_eq!(PathPrefixes::new(&["/static/"]).coverage(path), expected);
}

#[test]
fn a_path_deeper_than_the_machine_counts_is_still_judged() {
    let paths = SensitivePaths::default();
    assert!(paths.matches(format!("/admin{}", "/x".repeat(5_000))));
    assert!(paths.matches(format!("{}{}/admin", "/x".repeat(5_000), "/..".repeat(5_000))));
    assert!(!paths.matches(format!("{}/admin", "/x".repeat(5_000))));
}

/// The goal for 64 KiB is 10 ms; unoptimised it takes some ten times that, and ten times more fails.
#[test]
fn the_longest_path_is_judged_in_a_moment_however_it_is_written() {
    let paths = SensitivePaths::default();
    let units = [
        "a",
        "/",
        "a/",
        "..;/",
        "%5c",
        "%252525",
        "%c0%ae/",
        "a%3f/",
        "\u{ff0f}",
        ";",
        "%20",
        "/admin/..;",
    ];
    for unit in units {
        let path = format!("/%25252561{}", unit.repeat(65_536 / unit.len()));
        let before = Moment::now().steady;
        let sensitive = paths.matches(&path);
        let took_us = Moment::now().steady - before;
        eprintln!("64 KiB of {unit:?}: {took_us} us, sensitive: {sensitive}");
        assert!(took_us < 1_000_000, "64 KiB of {unit:?} took {took_us} us");
    }
}

#[test]
fn of_more_segments_than_any_server_takes_only_the_words_are_looked_for() {
    let paths = SensitivePaths::default();
    let popped = |segments: usize| format!("/admin/..{}/public", "/.".repeat(segments));
    assert!(!paths.matches(popped(1_000)), "it is read to its end");
    assert!(paths.matches(popped(3_000)));
    assert!(!paths.matches(format!("/x/..{}/public", "/.".repeat(3_000))));
    for word in ["%61dmin", "AD%4DIN", "a%00dmin", "%2561dmin", "\u{ff41}dmin"] {
        assert!(paths.matches(format!("{}/{word}", "/.".repeat(3_000))), "{word}");
    }
}

/// The rule in its simplest form, on a path that needs no reading.
fn exactly(path: &str) -> bool {
    ["/admin", "/login"].iter().any(|prefix| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Writes each byte as it is, in the other case, or escaped up to three times over.
fn disguised(path: &str, choices: &[u8]) -> String {
    let mut disguised = String::from("/");
    for (at, byte) in path.bytes().enumerate().skip(1) {
        let choice = choices[at % choices.len()];
        match choice % 8 {
            0..=2 => disguised.push(byte.into()),
            3 => disguised.push(byte.to_ascii_uppercase().into()),
            4 => disguised.push_str(&format!("%{byte:02x}")),
            5 => disguised.push_str(&format!("%25{byte:02X}")),
            6 => disguised.push_str(&format!("%u00{byte:02x}")),
            _ => disguised.push_str(&format!("%2525{byte:02x}")),
        }
    }
    disguised
}

fn any_path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        Just("admin".to_owned()),
        Just("login".to_owned()),
        Just("administrator".to_owned()),
        "[a-z0-9_-]{1,8}",
    ];
    prop::collection::vec(segment, 1..5).prop_map(|segments| format!("/{}", segments.join("/")))
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(path in prop::collection::vec(any::<u8>(), 0..300)) {
        SensitivePaths::default().matches(&path);
        PathPrefixes::new(&["/a/b/c", "/"]).coverage(&path);
    }

    #[test]
    fn no_text_of_the_odd_characters_makes_it_panic(
        path in "(/|\\\\|%|%25|%2f|%2e|\\.|;|%c0%ae|%ef%bc%8f|%u00|admin|login|x|\\?|%3f|%00| ){0,40}",
    ) {
        let paths = PathPrefixes::new(&SensitivePaths::DEFAULT);
        let coverage = paths.coverage(&path);
        prop_assert_eq!(paths.matches(&path), coverage != Coverage::No);
    }

    #[test]
    fn an_ordinary_path_is_judged_by_the_simple_rule(path in any_path()) {
        prop_assert_eq!(SensitivePaths::default().matches(&path), exactly(&path));
        // And the walk, which a final query of nothing does not spare, says the same.
        let walked = format!("{path}%3f");
        prop_assert_eq!(SensitivePaths::default().matches(&walked), exactly(&path));
    }

    #[test]
    fn a_sensitive_path_stays_so_in_any_disguise(
        path in any_path(), choices in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        prop_assume!(exactly(&path));
        let disguised = disguised(&path, &choices);
        prop_assert!(SensitivePaths::default().matches(&disguised), "{}", disguised);
    }

    #[test]
    fn a_disguise_makes_no_other_name_sensitive(
        path in any_path(), choices in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        prop_assume!(!exactly(&path));
        let disguised = disguised(&path, &choices);
        prop_assert!(!SensitivePaths::default().matches(&disguised), "{}", disguised);
    }
}
