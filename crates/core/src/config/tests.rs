//! The configuration as operators meet it: files, variables, mistakes.

use std::collections::BTreeSet;

use super::*;

const DOCUMENTED: &str = include_str!("../../../../deploy/ipwarden.toml");

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Loads `text` as the file, under `pairs` as the environment.
fn load_text(text: &str, pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ipwarden.toml");
    std::fs::write(&path, text).unwrap();
    load(Some(&path), variables(pairs))
}

fn problems(result: Result<Loaded, ConfigError>) -> Vec<Problem> {
    match result {
        Err(ConfigError::Invalid(problems)) => problems,
        other => panic!("expected problems, not {other:?}"),
    }
}

/// All keys of a text, dotted; those of lists of tables by the list's own name.
fn keys(text: &str) -> BTreeSet<String> {
    fn collect(prefix: &str, table: &toml::Table, keys: &mut BTreeSet<String>) {
        for (name, value) in table {
            match value.as_table() {
                Some(inner) => collect(&format!("{prefix}{name}."), inner, keys),
                None => drop(keys.insert(format!("{prefix}{name}"))),
            }
        }
    }
    let mut found = BTreeSet::new();
    collect("", &text.parse().unwrap(), &mut found);
    found
}

#[test]
fn no_settings_at_all_are_embedded_mode() {
    let loaded = load(None, []).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.config.store_url(), StoreUrl::Sqlite("data/ipwarden.db".into()));
    assert_eq!(loaded.config.redis_url, None);
    assert!(!loaded.config.node_name().is_empty());
    assert!(loaded.sources.values().all(|source| *source == Source::Default));
}

#[test]
fn the_documented_file_holds_every_key_with_its_default() {
    let loaded = load_text(DOCUMENTED, &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    let known: BTreeSet<String> = loaded.sources.keys().cloned().collect();
    let mut documented = keys(DOCUMENTED);
    if DOCUMENTED.contains("# [[quotas]]") {
        documented.insert("quotas".to_owned());
    }
    assert_eq!(documented, known);
}

#[test]
fn the_example_of_a_quota_in_the_documented_file_is_valid() {
    let (before, example) = DOCUMENTED.split_once("# [[quotas]]").unwrap();
    let example = example.replace("\n# ", "\n");
    let config = load_text(&format!("{before}[[quotas]]{example}"), &[]).unwrap().config;
    assert_eq!(config.quotas.len(), 1);
    assert_eq!(config.quotas[0].anonymous, "2/10s".parse().unwrap());
    assert_eq!(config.quotas[0].authenticated, "20/10s".parse().unwrap());
}

#[test]
fn every_key_has_a_variable_that_wins_over_the_file() {
    let file = "data_dir = 'file'\n[scan]\nmax_requests = 7\nwindow = '2h'";
    let loaded =
        load_text(file, &[("IPWARDEN_DATA_DIR", "variable"), ("IPWARDEN_SCAN__MAX_REQUESTS", "8")])
            .unwrap();
    assert_eq!(loaded.config.data_dir, PathBuf::from("variable"));
    assert_eq!(loaded.config.scan.max_requests, 8);
    assert_eq!(loaded.config.scan.window, std::time::Duration::from_hours(2));
    let source = |key: &str| loaded.sources[key].clone();
    assert_eq!(source("data_dir"), Source::Variable("IPWARDEN_DATA_DIR".to_owned()));
    assert_eq!(source("scan.window"), Source::File(loaded.file.clone().unwrap()));
    assert_eq!(source("scan.auto_block"), Source::Default);
}

#[test]
fn a_value_of_every_kind_can_come_from_a_variable() {
    let config = load(
        None,
        variables(&[
            ("IPWARDEN_PUBLIC__BIND", "[::]:80"),
            ("IPWARDEN_GATE__BIND", "127.0.0.1:0"),
            ("IPWARDEN_CLIENT_IP__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7"),
            ("IPWARDEN_CLIENT_IP__IPV6_PREFIX", "56"),
            ("IPWARDEN_RATE_LIMIT__MEMORY_BYTES", "64MiB"),
            ("IPWARDEN_REQUEST_LOG__DURABILITY", "power"),
            ("IPWARDEN_REQUEST_LOG__RETENTION", "90d"),
            ("IPWARDEN_REQUEST_LOG__ANONYMISE_AFTER", "7d"),
            ("IPWARDEN_SCAN__AUTO_BLOCK", "true"),
            ("IPWARDEN_SCAN__SENSITIVE_PATHS", ""),
            ("IPWARDEN_NODE", ""),
            ("IPWARDEN_LOG__FORMAT", "json"),
        ]),
    )
    .unwrap()
    .config;
    assert_eq!(config.public.bind, "[::]:80".parse().unwrap());
    let proxies: Vec<String> =
        config.client_ip.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "192.0.2.7"]);
    assert_eq!(config.client_ip.ipv6_prefix, 56);
    assert_eq!(config.rate_limit.memory_bytes, 64 << 20);
    assert_eq!(config.request_log.durability, Durability::Power);
    assert_eq!(config.request_log.anonymise_after, Some(std::time::Duration::from_hours(168)));
    assert!(config.scan.auto_block);
    assert!(config.scan.sensitive_paths.is_empty());
    assert_eq!(config.node, None);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn an_unknown_key_is_refused_by_name_and_the_nearest_is_suggested() {
    let found = problems(load_text(
        "trusted_proxies = []\n[scan]\nmax_request = 5\n[nonsense]\nquux = 1\n[[quotas]]\nnmae = 'x'",
        &[],
    ));
    let messages: Vec<String> =
        found.iter().map(|it| format!("{}: {}", it.key, it.message)).collect();
    for expected in [
        "trusted_proxies: unknown key; did you mean `client_ip.trusted_proxies`?",
        "scan.max_request: unknown key; did you mean `scan.max_requests`?",
        "nonsense.quux: unknown key; deploy/ipwarden.toml names all",
        "quotas[0].nmae: unknown key; did you mean `quotas[0].name`?",
    ] {
        assert!(messages.iter().any(|message| message == expected), "{expected}: {messages:#?}");
    }
}

#[test]
fn an_unknown_variable_is_only_warned_about() {
    let loaded = load(
        None,
        variables(&[
            ("IPWARDEN_PORT", "tcp://10.0.0.1:80"),
            ("IPWARDEN_SCAN__MAX_REQUEST", "5"),
            ("IPWARDEN_TEST_REDIS", "redis://x"),
            ("IPWARDEN_VECTORS", "cases"),
            ("PATH", "/bin"),
        ]),
    )
    .unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("IPWARDEN_PORT"));
    assert!(loaded.warnings[1].contains("did you mean IPWARDEN_SCAN__MAX_REQUESTS?"));
}

#[test]
fn every_bad_value_is_told_with_its_key_and_what_is_right() {
    for (text, key, says) in [
        ("database_url = 'mysql://x'", "database_url", "sqlite://path"),
        ("redis_url = 'localhost:6379'", "redis_url", "write redis://"),
        ("data_dir = ''", "data_dir", "must not be empty"),
        ("data_dir = 3", "data_dir", "a text in quotes, not a number"),
        ("public.bind = 'localhost:80'", "public.bind", "write `127.0.0.1:8080`"),
        ("public.bind = '0.0.0.0'", "public.bind", "address with a port"),
        ("control.bind = '0.0.0.0:8080'", "control.bind", "taken by `public.bind`"),
        ("gate.pass_secret = 'short'", "gate.pass_secret", "32 characters"),
        ("client_ip.trusted_proxies = ['10.0.0.0/33']", "client_ip.trusted_proxies", "10.0.0.0/33"),
        ("client_ip.trusted_proxies = ['proxy.lan']", "client_ip.trusted_proxies", "proxy.lan"),
        ("client_ip.trusted_proxies = '10.0.0.0/8'", "client_ip.trusted_proxies", "must be a list"),
        ("client_ip.trusted_proxies = ['0.0.0.0/0']", "client_ip.trusted_proxies", "i-understand"),
        ("client_ip.trust_everyone = 'yes'", "client_ip.trust_everyone", "i-understand"),
        ("client_ip.header = 'X Forwarded'", "client_ip.header", "no header name"),
        ("client_ip.header = 'Forwarded'", "client_ip.header", "Forwarded"),
        ("client_ip.ipv6_prefix = 129", "client_ip.ipv6_prefix", "from 16 to 128"),
        ("identity.header = ' x y'", "identity.header", "no header name"),
        ("rate_limit.memory_bytes = '256 megs'", "rate_limit.memory_bytes", "256MiB"),
        ("rate_limit.memory_bytes = 5", "rate_limit.memory_bytes", "at least 1MiB"),
        ("request_log.durability = 'fsync'", "request_log.durability", "`process` or `power`"),
        ("request_log.spool_bytes = -1", "request_log.spool_bytes", "must be bytes"),
        ("request_log.retention = 30", "request_log.retention", "a text in quotes"),
        ("request_log.retention = '30 days'", "request_log.retention", "such as `90s`"),
        ("request_log.retention = '1h'", "request_log.retention", "from 1d to"),
        ("request_log.anonymise_after = '31d'", "request_log.anonymise_after", "longer than"),
        ("request_log.anonymise_after = '2h'", "request_log.anonymise_after", "which is 3h"),
        ("geo.files = [1]", "geo.files", "must be a list of texts"),
        ("scan.max_requests = 0", "scan.max_requests", "from 1 to"),
        ("scan.max_requests = 1.5", "scan.max_requests", "whole number"),
        ("scan.window = '25h'", "scan.window", "from 1m to 1d"),
        ("scan.sensitive_paths = ['admin']", "scan.sensitive_paths", "begin with `/`"),
        ("scan.auto_block = 'no'", "scan.auto_block", "true or false"),
        ("store.max_connections = 2", "store.max_connections", "from 3"),
        ("log.level = 'loud=very'", "log.level", "write error, warn"),
        ("log.format = 'xml'", "log.format", "`text` or `json`"),
        ("quotas = 'x'", "quotas", "[[quotas]]"),
        ("[[quotas]]\nname = 'a'\nanonymous = '5 per minute'", "quotas[0].anonymous", "5/1m"),
        ("[[quotas]]\npaths = ['/a']", "quotas", "write 1 to 64"),
        ("[[quotas]]\nname = 'proxy'", "quotas", "proxy"),
    ] {
        let found = problems(load_text(text, &[]));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].key, key, "{text}");
        assert!(found[0].message.contains(says), "{text}: {}", found[0].message);
        assert!(found[0].to_string().contains("ipwarden.toml"), "{}", found[0]);
    }
}

#[test]
fn a_trusted_proxy_with_host_bits_is_masked_with_a_notice() {
    let loaded = load_text("client_ip.trusted_proxies = ['10.1.2.3/8']", &[]).unwrap();
    assert_eq!(loaded.config.client_ip.trusted_proxies, ["10.0.0.0/8".parse().unwrap()]);
    assert!(loaded.warnings[0].contains("`10.1.2.3/8` is read as 10.0.0.0/8"));
}

#[test]
fn everyone_is_trusted_only_by_those_who_understand() {
    let text = "[client_ip]\ntrusted_proxies = ['0.0.0.0/0']\ntrust_everyone = 'i-understand'";
    let resolver = load_text(text, &[]).unwrap().config.client_ip.resolver().unwrap();
    assert!(resolver.is_trusted("203.0.113.9".parse().unwrap()));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let error = load_text("[scan]\nmax_requests = 0\nwindow = 'x'\nfoo = 1", &[]).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 4, "{error}");
}

#[test]
fn a_bad_variable_is_told_by_its_name() {
    let found = problems(load(None, variables(&[("IPWARDEN_SCAN__WINDOW", "soon")])));
    assert!(found[0].to_string().starts_with("`scan.window` (IPWARDEN_SCAN__WINDOW): "));
}

#[test]
fn a_file_that_was_named_must_be_there_and_be_toml() {
    let missing = load(Some(Path::new("/nowhere/x.toml")), []).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/x.toml") && missing.contains("--config"), "{missing}");
    let pairs = variables(&[("IPWARDEN_CONFIG", "/nowhere/y.toml")]);
    let missing = load(None, pairs).unwrap_err().to_string();
    assert!(
        missing.contains("/nowhere/y.toml") && missing.contains("IPWARDEN_CONFIG"),
        "{missing}"
    );
    let broken = load_text("node = 'n'\nredis_url = 'redis://:hunter2@x", &[]).unwrap_err();
    assert!(matches!(broken, ConfigError::Syntax { .. }));
    let broken = broken.to_string();
    assert!(broken.contains("line 2") && !broken.contains("hunter2"), "{broken}");
}

#[test]
fn the_store_can_be_named_in_four_ways_and_a_flag_beats_them() {
    let name = |pairs: &[(&str, &str)]| {
        load_text("database_url = 'sqlite://file.db'", pairs).unwrap().config.store_url()
    };
    let sqlite = |path: &str| StoreUrl::Sqlite(path.into());
    assert_eq!(name(&[]), sqlite("file.db"));
    assert_eq!(name(&[("DATABASE_URL", "sqlite://known.db")]), sqlite("known.db"));
    let both =
        [("DATABASE_URL", "sqlite://known.db"), ("IPWARDEN_DATABASE_URL", "sqlite://own.db")];
    assert_eq!(name(&both), sqlite("own.db"));
    let environment = variables(&both);
    let flags = [("database_url", "sqlite://flag.db")];
    let flagged = load_with_flags(None, environment, &flags).unwrap();
    assert_eq!(flagged.config.store_url(), sqlite("flag.db"));
    assert_eq!(flagged.sources["database_url"], Source::Flag);
}

#[test]
fn secrets_come_from_files_too_without_their_line_break() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    std::fs::write(&store, "postgres://me:hunter2@db/x\n").unwrap();
    let pass = folder.path().join("pass");
    std::fs::write(&pass, "0123456789abcdef0123456789abcdef\r\n").unwrap();
    let pairs = variables(&[
        ("REDIS_URL", "redis-sentinel://:hunter2@one,two/main"),
        ("DATABASE_URL_FILE", store.to_str().unwrap()),
        ("IPWARDEN_GATE__PASS_SECRET_FILE", pass.to_str().unwrap()),
    ]);
    let loaded = load(None, pairs).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let config = loaded.config;
    assert_eq!(config.store_url(), StoreUrl::Postgres("postgres://me:hunter2@db/x".to_owned()));
    let secret = config.gate.pass_secret.clone().unwrap();
    assert_eq!(secret.reveal(), "0123456789abcdef0123456789abcdef");

    let shown = format!("{config:?} {}", config.to_toml());
    assert!(!shown.contains("hunter2") && !shown.contains("0123456789"), "{shown}");
    assert!(shown.contains("postgres://me:***@db/x"));
    assert!(shown.contains("redis-sentinel://:***@one:26379,two:26379/main"), "{shown}");
}

#[test]
fn a_secret_given_twice_or_in_a_missing_file_is_refused() {
    let twice = [("REDIS_URL", "redis://x"), ("REDIS_URL_FILE", "/x")];
    let found = problems(load(None, variables(&twice)));
    assert!(found[0].message.contains("REDIS_URL_FILE"), "{found:?}");
    let missing = load(None, variables(&[("REDIS_URL_FILE", "/nowhere/x")])).unwrap_err();
    assert!(missing.to_string().contains("REDIS_URL_FILE"), "{missing}");
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    let text = "node = 'n'\n[request_log]\nanonymise_after = '7d'\n[scan]\nwindow = '90m'\n\
                [[quotas]]\nname = 'a'\nanonymous = '3/10s'";
    let config = load_text(text, &[]).unwrap().config;
    assert_eq!(load_text(&config.to_toml(), &[]).unwrap().config, config);
    assert_eq!(load_text(&Config::default().to_toml(), &[]).unwrap().config, Config::default());
}
