//! The blocklist for other programs, each of which reads it here.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Ran, Store, every_store, finish};

/// A store with blocks that overlap and touch, ends, and allowed networks within and around.
fn fill(store: &Store) {
    for block in [
        vec!["block", "203.0.113.0/24", "203.0.113.7", "198.51.100.0/25", "198.51.100.128/25"],
        vec!["block", "192.0.2.9", "2001:db8:7::/48", "--for", "4h"],
        vec!["block", "192.0.2.200", "--for", "60d"],
        vec!["block", "192.0.2.66"],
    ] {
        store.done(&block);
    }
    store.done(&["allow", "203.0.113.64/26", "192.0.2.66"]);
}

fn export(store: &Store, format: &str) -> String {
    store.done(&["export", "blocklist", "--format", format])
}

/// A program of Debian, or of the tests' own environment, or how to get it.
fn program(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let places = [PathBuf::from("/usr/sbin"), "/usr/bin".into(), "/sbin".into()];
    let found = places.into_iter().chain([target.join("proxies/bin")]).map(|dir| dir.join(name));
    let mut found = found.filter(|path| path.exists());
    found.next().unwrap_or_else(|| panic!("no {name}: bash .ci/test installs it"))
}

/// A script in a network of its own; `None` if this kernel lets nobody have one, or without `what`.
fn in_own_network(what: &str, probe: &str, script: &str, input: &str) -> Option<Ran> {
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", script]);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        finish(command, input.as_bytes())
    };
    let probed = run(probe);
    if probed.code != 0 {
        eprintln!("NOT RUN: this kernel lets us have no {what} of our own: {}", probed.stderr);
        return None;
    }
    Some(run(script))
}

fn checked(program: &Path, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let ran = finish(command, b"");
    assert_eq!(ran.code, 0, "{program:?} {arguments:?}: {ran:?}");
}

fn written(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn nftables_loads_the_blocklist_with_its_ends_and_replaces_it_whole() {
    program("nft");
    every_store(async |store: Store| {
        let empty = export(&store, "nft");
        fill(&store);
        let rules = export(&store, "nft");
        assert!(rules.contains("\t\t\t203.0.113.0/26,\n"), "{rules}");
        assert!(rules.contains("\t\t\t203.0.113.128/25,\n"), "{rules}");
        assert!(rules.contains("\t\t\t198.51.100.0/24,\n"), "{rules}");
        assert!(!rules.contains("192.0.2.66"), "{rules}");
        let script = "set -e; cat >/dev/shm/$$.nft; trap 'rm /dev/shm/$$.nft' EXIT; \
                      nft -c -f /dev/shm/$$.nft; nft -f /dev/shm/$$.nft; nft -f /dev/shm/$$.nft; \
                      nft list ruleset";
        for rules in [&empty, &rules] {
            let Some(ran) = in_own_network("nftables", "nft list ruleset", script, rules) else {
                return;
            };
            assert_eq!(ran.code, 0, "{ran:?}\n{rules}");
            if rules == &empty {
                continue;
            }
            for held in [
                "203.0.113.0/26",
                "203.0.113.128/25",
                "2001:db8:7::/48 timeout",
                "192.0.2.9 timeout",
            ] {
                assert!(ran.stdout.contains(held), "{held}: {ran:?}");
            }
            assert!(ran.stdout.contains("3h59m") || ran.stdout.contains("timeout 4h"), "{ran:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn ipset_loads_the_blocklist_with_its_ends_and_swaps_it_whole() {
    program("ipset");
    every_store(async |store: Store| {
        fill(&store);
        let sets = export(&store, "ipset");
        assert!(sets.contains("add ipwarden4-next 192.0.2.200 timeout 2147483\n"), "{sets}");
        let script = "set -e; cat >/dev/shm/$$.set; trap 'rm /dev/shm/$$.set' EXIT; \
                      ipset restore -exist </dev/shm/$$.set; ipset restore -exist </dev/shm/$$.set; ipset list";
        let probe = "ipset create probe hash:net timeout 0";
        let Some(ran) = in_own_network("ipset", probe, script, &sets) else { return };
        assert_eq!(ran.code, 0, "{ran:?}\n{sets}");
        for held in ["203.0.113.0/26 timeout 0", "198.51.100.0/24 timeout 0", "2001:db8:7::/48 timeout 14"] {
            assert!(ran.stdout.contains(held), "{held}: {ran:?}");
        }
        assert!(!ran.stdout.contains("next"), "{ran:?}");
    })
    .await;
}

#[tokio::test]
async fn nginx_haproxy_and_caddy_load_the_blocklist_full_or_empty() {
    let [nginx, haproxy, caddy] = ["nginx", "haproxy", "caddy"].map(program);
    every_store(async |store: Store| {
        for full in [false, true] {
            if full {
                fill(&store);
            }
            let dir = store.dir.path();
            let list = export(&store, "nginx");
            assert_eq!(list.contains("\t203.0.113.0/26 1;\n"), full, "{list}");
            let list = written(dir, "geo.conf", &list);
            let settings = format!(
                "pid {dir}/pid; error_log stderr; events {{}} http {{ access_log off; include {list}; \
                 server {{ listen 127.0.0.1:1; if ($ipwarden_blocked) {{ return 403; }} }} }}",
                dir = dir.display()
            );
            let settings = written(dir, "nginx.conf", &settings);
            checked(&nginx, &["-t", "-q", "-e", "stderr", "-p", dir.to_str().unwrap(), "-c", &settings]);

            let list = written(dir, "blocked.lst", &export(&store, "haproxy"));
            let settings = format!(
                "defaults\n  mode http\n  timeout client 1s\n  timeout connect 1s\n  timeout server 1s\n\
                 frontend a\n  bind 127.0.0.1:1\n  http-request deny if {{ src -f {list} }}\n"
            );
            let settings = written(dir, "haproxy.cfg", &settings);
            checked(&haproxy, &["-c", "-q", "-f", &settings]);

            let list = written(dir, "blocked.caddy", &export(&store, "caddy"));
            let settings = format!("http://127.0.0.1:1 {{\n\timport {list}\n\trespond 200\n}}\n");
            let settings = written(dir, "Caddyfile", &settings);
            checked(&caddy, &["adapt", "--adapter", "caddyfile", "--config", &settings, "--validate"]);
        }
    })
    .await;
}
