//! What a person sees while a command takes long.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{Store, every_store, ipctl};
use ipwarden_testbed::proxy::Proxy;

/// Every command that needs the store, as it may be given.
const COMMANDS: &[&[&str]] = &[
    &["block", "192.0.2.1"],
    &["unblock", "192.0.2.1"],
    &["list-blocked"],
    &["allow", "192.0.2.1"],
    &["disallow", "192.0.2.1"],
    &["list-allowed"],
    &["list-suspicious"],
    &["review", "1", "--dismiss"],
    &["check", "192.0.2.1"],
    &["logs"],
    &["stats"],
    &["scan"],
    &["import", "access-log", "access.log"],
    &["import", "blocklist", "list.txt"],
    &["import", "allowlist", "list.txt"],
    &["export", "blocklist"],
    &["export", "allowlist"],
    &["export", "data", "--ip", "192.0.2.1"],
    &["key", "create", "ci", "--role", "reader"],
    &["key", "list"],
    &["key", "revoke", "1", "--yes"],
    &["bouncer", "add", "edge"],
    &["bouncer", "list"],
    &["bouncer", "delete", "edge", "--yes"],
    &["user", "add", "anna", "--role", "reader"],
    &["user", "list"],
    &["user", "remove", "anna", "--yes"],
    &["user", "passwd", "anna"],
    &["forget", "192.0.2.1", "--yes"],
    &["migrate"],
    &["migrate-from", "crowdsec", "decisions.json"],
];

/// Those that take no time, or that say how far they are while they wait for somebody else.
const OTHERS: &[&str] = &[
    "geo lookup",
    "geo info",
    "geo update",
    "migrate-from django",
    "migrate-from fail2ban",
    "config check",
    "config show",
    "completions",
    "man",
];

/// Runs a command as on a terminal that is 80 columns wide, and returns what that shows.
fn on_a_terminal(dir: &Path, url: &str, arguments: &[&str]) -> String {
    let words: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("stty cols 80; exec {} {}", env!("CARGO_BIN_EXE_ipctl"), words.join(" "));
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.current_dir(dir).env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
    command.env("DATABASE_URL", url).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The password that some ask for, and its repetition.
    let _ =
        child.stdin.take().unwrap().write_all(b"correct horse battery\ncorrect horse battery\n");
    let Output { stdout, .. } = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&stdout).into_owned()
}

fn files(dir: &Path, lines: usize) {
    let line = "192.0.2.7 - - [22/Nov/2026:10:00:00 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"x\"\n";
    std::fs::write(dir.join("access.log"), line.repeat(lines)).unwrap();
    std::fs::write(dir.join("list.txt"), "192.0.2.0/24\n").unwrap();
    let decision = r#"[{"value": "192.0.2.9", "scope": "Ip", "type": "ban", "duration": "4h"}]"#;
    std::fs::write(dir.join("decisions.json"), decision).unwrap();
}

fn behind(store: &Store, proxy: &Proxy) -> String {
    let port = store.url.rsplit_once(':').unwrap().1.split('/').next().unwrap();
    store.url.replace(&format!(":{port}/"), &format!(":{}/", proxy.address().port()))
}

fn proxy_to(store: &Store) -> Proxy {
    let port = store.url.rsplit_once(':').unwrap().1.split('/').next().unwrap();
    Proxy::to(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()))).unwrap()
}

#[test]
fn every_command_is_known_here() {
    let reference = include_str!("../../../docs/CLI.md");
    let titles = || reference.lines().filter_map(|line| line.strip_prefix("## ipctl "));
    // What has commands below it is none itself.
    let leaves =
        titles().filter(|one| !titles().any(|other| other.starts_with(&format!("{one} "))));
    let known = COMMANDS.iter().map(|words| words.join(" "));
    let known: Vec<String> = known.chain(OTHERS.iter().map(|one| (*one).to_owned())).collect();
    let unknown: BTreeSet<&str> =
        leaves.filter(|one| !known.iter().any(|words| words.starts_with(one))).collect();
    assert_eq!(unknown, BTreeSet::new());
}

#[tokio::test]
async fn a_command_that_waits_for_the_store_says_that_it_is_at_work() {
    every_store(async |store: Store| {
        if store.name == "sqlite" {
            return;
        }
        files(store.dir.path(), 10);
        let proxy = proxy_to(&store);
        proxy.hold();
        let url = behind(&store, &proxy);
        std::thread::scope(|scope| {
            let run = |arguments: &'static [&'static str]| {
                let (dir, url) = (store.dir.path(), &url);
                (arguments, scope.spawn(move || on_a_terminal(dir, url, arguments)))
            };
            let runs: Vec<_> = COMMANDS.iter().copied().map(run).collect();
            for (arguments, shown) in runs {
                let shown = shown.join().unwrap();
                // `migrate` knows what it waits for.
                let says_so = ["at work", "applying"].iter().any(|words| shown.contains(words));
                assert!(says_so, "{arguments:?}: {shown:?}");
                assert!(shown.contains("error: "), "{arguments:?} does not end: {shown:?}");
            }
        });
    })
    .await;
}

#[tokio::test]
async fn a_long_import_says_how_far_it_is_and_leaves_nothing_of_that_behind() {
    every_store(async |store: Store| {
        if store.name == "sqlite" {
            return;
        }
        files(store.dir.path(), 2_000);
        let proxy = proxy_to(&store);
        proxy.set_latency(Duration::from_millis(100));
        let shown = on_a_terminal(
            store.dir.path(),
            &behind(&store, &proxy),
            &["import", "access-log", "access.log"],
        );
        assert!(shown.contains("100%") && shown.contains("records"), "{shown:?}");
        let mut quiet = ipctl(store.dir.path());
        quiet.env("DATABASE_URL", behind(&store, &proxy)).args(["stats"]);
        let output = quiet.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!told.contains("at work") && !told.contains("counting"), "into a pipe: {told:?}");
    })
    .await;
}
