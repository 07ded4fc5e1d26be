//! Blocking and unblocking from a terminal, on both databases.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use common::{Store, every_store, finish};
use ipwarden_core::lists::own_addresses;
use ipwarden_engine::network::Network;

#[derive(serde::Deserialize)]
struct Case {
    id: String,
    target: String,
    valid: bool,
    canonical: Option<String>,
}

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/vectors/targets.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<Case> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() > 40);
    cases
}

#[tokio::test]
async fn every_target_of_the_vectors_is_taken_or_refused_as_listed() {
    every_store(async |store: Store| {
        for Case { id, target, valid, canonical } in cases() {
            let before = store.audit().await.len();
            let block = store.run(&["block", &target]);
            let Ok(parsed) = Network::parse(&target) else {
                assert!(!valid, "{id}");
                for command in ["block", "unblock", "check"] {
                    let ran = store.run(&[command, &target]);
                    let reason = Network::parse(&target).unwrap_err().to_string();
                    assert_eq!(ran.code, 2, "{id} {command}: {ran:?}");
                    assert!(ran.stderr.contains(&reason), "{id} {command}: {ran:?}");
                    assert_eq!(ran.stdout, "", "{id} {command}");
                }
                assert_eq!(store.audit().await.len(), before, "{id} was written");
                continue;
            };
            // This machine may have an address of the vectors: then a block of it is refused.
            let network = parsed.network;
            let is_own = own_addresses().into_iter().any(|own| network.contains(own));
            if valid && !is_own {
                assert_eq!(block.code, 0, "{id}: {block:?}");
            } else {
                assert_eq!(block.code, 2, "{id}: {block:?}");
                assert!(block.stderr.contains("--force"), "{id}: {block:?}");
                assert_eq!(store.audit().await.len(), before, "{id} was written");
                let unblock = store.done(&["unblock", &target]);
                assert_eq!(unblock, format!("{network} was not blocked\n"), "{id}");
                store.done(&["block", &target, "--force"]);
            }
            let canonical = canonical.unwrap_or_else(|| network.to_string());
            let checked = store.json(&["check", &target]);
            assert_eq!(checked["network"], *canonical, "{id}");
            assert_eq!(checked["verdict"], "blocked", "{id}");
            assert_eq!(
                store.done(&["unblock", &target]),
                format!("{canonical} is no longer blocked\n")
            );
            assert_eq!(store.json(&["list-blocked"]), serde_json::json!([]), "{id}");
        }
    })
    .await;
}

#[tokio::test]
async fn doing_it_twice_is_done_and_said() {
    every_store(async |store: Store| {
        let block = ["block", "203.0.113.9", "--reason", "scraping"];
        assert_eq!(store.done(&block), "blocked 203.0.113.9 permanently\n");
        assert_eq!(store.done(&block), "203.0.113.9 was already blocked, permanently\n");
        let again = store.done(&["block", "203.0.113.9", "--for", "4h"]);
        assert!(again.starts_with("203.0.113.9 was already blocked, now until 20"), "{again}");
        assert!(again.ends_with("(was permanently)\n"), "{again}");
        assert_eq!(store.json(&["list-blocked"])[0]["reason"], "scraping", "kept");
        assert_eq!(store.done(&["unblock", "203.0.113.9"]), "203.0.113.9 is no longer blocked\n");
        assert_eq!(store.done(&["unban", "203.0.113.9"]), "203.0.113.9 was not blocked\n");
        assert_eq!(store.done(&["allow", "203.0.113.9"]), "allowed 203.0.113.9 permanently\n");
        assert_eq!(
            store.done(&["allow", "203.0.113.9"]),
            "203.0.113.9 was already allowed, permanently\n"
        );
        assert_eq!(store.done(&["disallow", "203.0.113.9"]), "203.0.113.9 is no longer allowed\n");
        assert_eq!(store.done(&["disallow", "203.0.113.9"]), "203.0.113.9 was not allowed\n");
        let audit = store.audit().await;
        assert_eq!(audit.len(), 9, "what was so already is audited too");
        assert!(audit.iter().all(|row| row.actor.starts_with("cli:")), "{audit:?}");
    })
    .await;
}

#[tokio::test]
async fn unblocking_one_of_several_names_what_still_blocks() {
    every_store(async |store: Store| {
        store.done(&["block", "10.2.0.0/16", "10.2.3.0/24", "10.2.3.4"]);
        let ran = store.run(&["unblock", "10.2.3.0/24"]);
        assert_eq!((ran.code, &*ran.stdout), (0, "10.2.3.0/24 is no longer blocked\n"));
        assert!(ran.stderr.contains("still blocked by 10.2.0.0/16"), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("inside 10.2.3.0/24 still blocked: 10.2.3.4"),
            "{}",
            ran.stderr
        );
        let check = store.done(&["check", "10.2.3.9"]);
        assert!(check.starts_with("10.2.3.9: blocked, "), "{check}");
        assert!(check.contains("10.2.0.0/16") && !check.contains("10.2.3.0/24"), "{check}");
        assert_eq!(store.json(&["check", "10.2.3.4"])["blocked"].as_array().unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn what_is_allowed_trusted_or_ones_own_is_refused_without_force() {
    every_store(async |store: Store| {
        let file = store.dir.path().join("ipwarden.toml");
        std::fs::write(file, "[client_ip]\ntrusted_proxies = [\"10.0.0.0/8\"]\n").unwrap();
        store.done(&["allow", "192.168.0.0/16"]);
        let before = store.audit().await.len();
        for (target, reason) in [
            ("192.168.1.1", "192.168.0.0/16 on the allowlist"),
            ("192.168.10.20/24", "192.168.0.0/16 on the allowlist"),
            ("10.0.0.1", "trusted proxy 10.0.0.0/8"),
            ("10.0.0.0/7", "wider than /8"),
            ("198.51.100.7", "where you come from"),
            ("198.51.100.0/24", "where you come from"),
        ] {
            // All or nothing: the one that is fine is not blocked either.
            let mut command = store.command(&["block", "203.0.113.9", target]);
            command.env("SSH_CONNECTION", "198.51.100.7 50000 203.0.113.1 22");
            let ran = finish(command, b"");
            assert_eq!((ran.code, &*ran.stdout), (2, ""), "{target}: {ran:?}");
            assert!(ran.stderr.contains(reason), "{target}: {ran:?}");
            assert!(ran.stderr.contains("--force"), "{target}: {ran:?}");
        }
        assert_eq!(store.audit().await.len(), before);
        let forced = store.run(&["block", "192.168.1.1", "--force"]);
        assert_eq!(forced.code, 0, "{forced:?}");
        assert!(forced.stderr.contains("warning: 192.168.1.1 touches"), "{forced:?}");
        let check = store.done(&["check", "192.168.1.1"]);
        assert!(check.starts_with("192.168.1.1: allowed, on the allowlist"), "{check}");
    })
    .await;
}

#[tokio::test]
async fn lists_come_from_files_and_standard_input_whole_or_not_at_all() {
    every_store(async |store: Store| {
        let file = store.dir.path().join("list.txt");
        std::fs::write(&file, "# two of them\n192.0.2.128/25\r\n\n2001:db8::/48 # documentation\n")
            .unwrap();
        let from_input = finish(
            store.command(&["block", "-", "@list.txt", "-i", "198.51.100.9"]),
            b"203.0.113.1\n203.0.113.1\n",
        );
        assert_eq!(from_input.code, 0, "{from_input:?}");
        assert_eq!(from_input.stdout.lines().count(), 4, "each once: {from_input:?}");
        let wrong = finish(store.command(&["unblock", "-"]), b"203.0.113.1\nexample.com\n1.2.3\n");
        assert_eq!(wrong.code, 2, "{wrong:?}");
        assert!(wrong.stderr.contains("standard input, line 2: `example.com`"), "{wrong:?}");
        assert!(wrong.stderr.contains("standard input, line 3: `1.2.3`"), "{wrong:?}");
        assert_eq!(store.json(&["list-blocked"]).as_array().unwrap().len(), 4);
        let missing = store.run(&["block", "@nowhere.txt"]);
        assert_eq!(missing.code, 2, "{missing:?}");
        assert!(missing.stderr.contains("nowhere.txt"), "{missing:?}");
    })
    .await;
}
