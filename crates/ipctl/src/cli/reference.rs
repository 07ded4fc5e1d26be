//! `docs/CLI.md`, out of the same source as `--help` and the manual pages.

use clap::CommandFactory;

use super::Cli;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CLI.md");

const HEAD: &str = "\
# ipctl: every command

Written from what `--help` says: `just cli` does it again. The same is in the manual pages (`ipctl man`).
";

/// The names of every visible command, from `ipctl` down.
pub(super) fn paths() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, before: &[String], all: &mut Vec<Vec<String>>) {
        let path = [before, &[command.get_name().to_owned()]].concat();
        all.push(path.clone());
        let is_visible = |one: &&clap::Command| one.get_name() != "help" && !one.is_hide_set();
        for inner in command.get_subcommands().filter(is_visible) {
            walk(inner, &path, all);
        }
    }
    let mut all = Vec::new();
    walk(&Cli::command(), &[], &mut all);
    all
}

/// What `--help` of a command answers on a terminal of so many characters.
pub(super) fn help(path: &[String], width: usize) -> String {
    let asked = path.iter().map(String::as_str).chain(["--help"]);
    let help = Cli::command().term_width(width).try_get_matches_from(asked).unwrap_err();
    assert_eq!(help.exit_code(), 0);
    help.to_string()
}

#[test]
fn the_reference_is_what_the_source_gives() {
    let mut text = HEAD.to_owned();
    for path in paths() {
        let help = help(&path, 100);
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        text +=
            &format!("\n## {}\n\n```text\n{}\n```\n", path.join(" "), lines.join("\n").trim_end());
    }
    if std::env::var_os("IPWARDEN_WRITE_REFERENCE").is_some() {
        std::fs::write(REFERENCE, &text).unwrap();
    }
    let written = std::fs::read_to_string(REFERENCE).unwrap_or_default();
    assert!(written == text, "docs/CLI.md is not what the source gives: `just cli` writes it");
}
