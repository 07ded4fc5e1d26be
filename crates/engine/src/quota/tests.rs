use std::time::Duration;

use rstest::rstest;

use super::*;

fn policy(name: &str, paths: &[&str], methods: &[&str], anonymous: &str) -> Policy {
    Policy {
        name: name.to_owned(),
        paths: paths.iter().map(|path| path.to_string()).collect(),
        methods: methods.iter().map(|method| method.to_string()).collect(),
        anonymous: anonymous.parse().unwrap(),
        authenticated: Quota::AUTHENTICATED,
        dry_run: false,
    }
}

#[rstest]
#[case("5/1m", 5, 60, "5/1m")]
#[case("600/60s", 600, 60, "600/1m")]
#[case("10/30s", 10, 30, "10/30s")]
#[case("1000/1h", 1000, 3_600, "1000/1h")]
#[case("7/90m", 7, 5_400, "7/90m")]
#[case("1/1d", 1, 86_400, "1/1d")]
#[case("1/24h", 1, 86_400, "1/1d")]
#[case("4294967295/1s", u32::MAX, 1, "4294967295/1s")]
fn a_quota_reads_and_writes_itself(
    #[case] text: &str,
    #[case] limit: u32,
    #[case] seconds: u64,
    #[case] canonical: &str,
) {
    let quota: Quota = text.parse().unwrap();
    assert_eq!(quota, Quota::new(limit, Duration::from_secs(seconds)));
    assert_eq!(quota.to_string(), canonical);
    assert_eq!(canonical.parse(), Ok(quota));
}

#[rstest]
#[case("")]
#[case("5")]
#[case("5 per minute")]
#[case("/1m")]
#[case("0/1m")]
#[case("-1/1m")]
#[case("+5/1m")]
#[case("5.5/1m")]
#[case("4294967296/1m")]
#[case("5/")]
#[case("5/m")]
#[case("5/60")]
#[case("5/0s")]
#[case("5/1w")]
#[case("5/2d")]
#[case("5/86401s")]
#[case("5/1M")]
#[case("5/ 1m")]
#[case("5/1é")]
#[case("5/99999999999999999999d")]
fn what_is_no_quota_is_refused_with_an_example(#[case] text: &str) {
    let error = text.parse::<Quota>().unwrap_err();
    assert!(error.to_string().contains("`5/1m`"), "{error}");
}

#[test]
fn a_share_is_never_less_than_one() {
    let limit_of = |live| Quota::ANONYMOUS.share(live).limit;
    assert_eq!([0, 1, 2, 4, 5, 6, 1000].map(limit_of), [5, 5, 2, 1, 1, 1, 1]);
}

#[test]
fn without_policies_the_defaults_apply_by_standing() {
    let policies = Policies::default();
    for (standing, name, quota) in [
        (Standing::Anonymous, "anonymous", "5/1m"),
        (Standing::Authenticated, "authenticated", "10/1m"),
        (Standing::Proxy, "proxy", "600/1m"),
    ] {
        let applied = policies.apply(standing, "GET", "/");
        assert_eq!((applied.name, applied.quota.to_string().as_str()), (name, quota));
        assert!(!applied.dry_run);
    }
}

#[test]
fn the_first_policy_that_matches_wins_and_the_defaults_come_last() {
    let policies = Policies::new(vec![
        policy("writes", &["/search"], &["POST", "PUT"], "1/1m"),
        policy("search", &["/search", "/find/"], &[], "30/1m"),
        policy("late", &["/search/x"], &[], "99/1m"),
    ])
    .unwrap();
    let name = |method, path| policies.apply(Standing::Anonymous, method, path).name;
    assert_eq!(name("POST", "/search"), "writes");
    assert_eq!(name("post", "/search"), "writes");
    assert_eq!(name("GET", "/search"), "search");
    assert_eq!(name("GET", "/search/"), "search");
    assert_eq!(name("GET", "/search/x/y"), "search");
    assert_eq!(name("GET", "/search?q=1"), "search");
    assert_eq!(name("GET", "/find"), "search");
    assert_eq!(name("GET", "/find/it"), "search");
    assert_eq!(name("GET", "/searching"), "anonymous");
    assert_eq!(name("GET", "/sear"), "anonymous");
    assert_eq!(name("GET", "/x/search"), "anonymous");
    assert_eq!(name("GET", "/x/../search"), "search");
    assert_eq!(name("GET", "*"), "anonymous");
}

#[test]
fn a_policy_for_the_root_or_for_no_path_holds_every_path() {
    for paths in [&["/"][..], &[]] {
        let policies = Policies::new(vec![policy("all", paths, &[], "7/1m")]).unwrap();
        for path in ["/", "/a", "/a/b"] {
            let applied = policies.apply(Standing::Anonymous, "GET", path);
            assert_eq!((applied.name, applied.quota.limit), ("all", 7), "{path}");
        }
        let authenticated = policies.apply(Standing::Authenticated, "GET", "/");
        assert_eq!((authenticated.name, authenticated.quota.limit), ("all", 10));
        assert_eq!(policies.apply(Standing::Proxy, "GET", "/").name, "proxy");
    }
}

#[test]
fn no_way_to_write_a_path_leads_to_a_laxer_policy() {
    let policies = Policies::new(vec![
        policy("static", &["/static"], &[], "1000/1m"),
        policy("login", &["/login"], &[], "1/1m"),
        policy("search", &["/search"], &[], "30/1m"),
        Policy { dry_run: true, ..policy("trial", &["/trial"], &[], "1/1h") },
    ])
    .unwrap();
    let name = |path| policies.apply(Standing::Anonymous, "GET", path).name;
    // One reading only, however it is written.
    assert_eq!(name("/static/a.css"), "static");
    assert_eq!(name("/static/a%20b.css"), "static");
    assert_eq!(name("/LOGIN"), "login");
    assert_eq!(name("/%6Cogin"), "login");
    assert_eq!(name("/static/../login"), "login");
    assert_eq!(name("/search/x?next=/login"), "search");
    // Readers disagree: the strictest of what they may serve.
    assert_eq!(name("/static/..;/login"), "login");
    assert_eq!(name("/static/..%2flogin"), "login");
    assert_eq!(name("/static\\..\\login"), "login");
    assert_eq!(name("/login/..;/static"), "login");
    assert_eq!(name("/search/..;/elsewhere"), "anonymous");
    // What is only counted is no refuge from what is enforced.
    assert_eq!(name("/trial/x"), "trial");
    assert_eq!(name("/trial/..;/search"), "anonymous");
    assert_eq!(name("/trial/..;/login"), "login");
}

#[rstest]
#[case("", "1 to 64")]
#[case("a\"b", "1 to 64")]
#[case("a\\b", "1 to 64")]
#[case("a|b", "1 to 64")]
#[case("größe", "1 to 64")]
#[case("a\r\nb", "1 to 64")]
#[case("anonymous", "taken")]
#[case("authenticated", "taken")]
#[case("proxy", "taken")]
fn a_name_that_headers_cannot_carry_is_refused(#[case] name: &str, #[case] says: &str) {
    let error = Policies::new(vec![policy(name, &["/"], &[], "5/1m")]).unwrap_err();
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn two_policies_of_one_name_bad_paths_and_bad_methods_are_refused() {
    let twice = vec![policy("a", &["/"], &[], "5/1m"), policy("a", &["/b"], &[], "5/1m")];
    assert_eq!(Policies::new(twice), Err(PolicyError::Twice("a".to_owned())));
    for path in ["", "search", "/a?b", "/a#b"] {
        let error = Policies::new(vec![policy("a", &[path], &[], "5/1m")]).unwrap_err();
        assert!(matches!(error, PolicyError::Path { .. }), "{path}");
    }
    for method in ["", "GET POST", "GÉT"] {
        let error = Policies::new(vec![policy("a", &["/"], &[method], "5/1m")]).unwrap_err();
        assert!(matches!(error, PolicyError::Method { .. }), "{method}");
    }
    let never = Policy {
        anonymous: Quota::new(0, Duration::from_secs(1)),
        ..policy("a", &[], &[], "5/1m")
    };
    assert!(matches!(Policies::new(vec![never]), Err(PolicyError::Quota { .. })));
}

#[test]
fn a_policy_is_read_from_configuration_with_the_defaults_for_what_is_missing() {
    let read: Policy = serde_json::from_str(r#"{"name":"search","paths":["/search"]}"#).unwrap();
    assert_eq!(read, policy("search", &["/search"], &[], "5/1m"));
    let error = serde_json::from_str::<Policy>(r#"{"name":"a","anonymous":"5"}"#).unwrap_err();
    assert!(error.to_string().contains("LIMIT/PERIOD"), "{error}");
    assert!(serde_json::from_str::<Policy>(r#"{"name":"a","limit":5}"#).is_err());
}
