//! What a shell offers, asked as bash asks.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Ran, Store, every_store, finish};

/// What bash offers for the last of these words.
fn offered(store: &Store, words: &[&str]) -> Vec<String> {
    const SCRIPT: &str = r#"source <(ipctl completions bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9
_clap_complete_ipctl ipctl "${COMP_WORDS[COMP_CWORD]}"
printf '%s\n' "${COMPREPLY[@]}""#;
    let program = Path::new(env!("CARGO_BIN_EXE_ipctl"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut bash = Command::new("bash");
    bash.current_dir(store.dir.path()).env_clear().env("PATH", path);
    bash.env("DATABASE_URL", &store.url).args(["-c", SCRIPT, "bash", "ipctl"]).args(words);
    let ran = finish(bash, b"");
    let Ran { code: 0, stdout, stderr } = ran else { panic!("{words:?}: {ran:?}") };
    assert_eq!(stderr, "", "{words:?}: it would stand in the line that is being typed");
    stdout.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_shell_offers_commands_networks_ids_and_names() {
    every_store(async |store: Store| {
        store.done(&["block", "203.0.113.9", "203.0.114.0/24", "198.51.100.7"]);
        store.done(&["allow", "192.0.2.0/24"]);
        store.done(&["bouncer", "add", "edge"]);
        let shop = store.json(&["key", "create", "shop"])["id"].as_str().unwrap().to_owned();
        assert_eq!(offered(&store, &["unbl"]), ["unblock"]);
        let mut blocked = offered(&store, &["unblock", "203."]);
        blocked.sort_unstable();
        assert_eq!(blocked, ["203.0.113.9", "203.0.114.0/24"]);
        assert_eq!(offered(&store, &["unblock", "203.0.113.9", "198"]), ["198.51.100.7"]);
        assert_eq!(offered(&store, &["disallow", "1"]), ["192.0.2.0/24"]);
        assert_eq!(offered(&store, &["bouncer", "delete", "e"]), ["edge"]);
        assert_eq!(offered(&store, &["key", "revoke", &shop[..4]]), [shop.as_str()]);
        assert_eq!(offered(&store, &["review", "9"]), [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn without_a_store_nothing_is_offered_and_nothing_is_said() {
    every_store(async |mut store: Store| {
        store.url = "sqlite:///nowhere/at-all.db".to_owned();
        assert_eq!(offered(&store, &["unblock", "2"]), [""; 0]);
    })
    .await;
}
