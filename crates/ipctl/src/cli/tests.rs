use chrono::TimeDelta;
use clap::{CommandFactory, Parser};

use super::reference::{help, paths};
use super::*;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

/// What changes nothing that is kept: whatever is not named here can be rehearsed.
const READING: [&str; 18] = [
    "list-blocked",
    "list-allowed",
    "list-suspicious",
    "check",
    "logs",
    "stats",
    "export blocklist",
    "export allowlist",
    "export data",
    "geo lookup",
    "geo info",
    "key list",
    "bouncer list",
    "user list",
    "config check",
    "config show",
    "completions",
    "man",
];

#[test]
fn whatever_changes_something_can_be_rehearsed() {
    let mut reading = Vec::new();
    for path in paths() {
        let root = Cli::command();
        let find = |command: &clap::Command, name: &String| command.find_subcommand(name).cloned();
        let command = path[1..].iter().try_fold(root, |command, name| find(&command, name));
        let command = command.unwrap();
        if command.has_subcommands() {
            continue;
        }
        if !command.get_arguments().any(|argument| argument.get_long() == Some("dry-run")) {
            reading.push(path[1..].join(" "));
        }
    }
    assert_eq!(reading, READING, "on the left what has no --dry-run");
}

/// What `--help` answers for every command, on a terminal of 80 characters.
#[test]
fn help_says_what_there_is() {
    let mut text = String::new();
    for path in paths() {
        text += &format!("===== {} --help\n{}\n", path.join(" "), help(&path, 80));
    }
    insta::assert_snapshot!("help", text);
}

#[test]
fn words_of_other_tools_are_understood() {
    for line in [
        "ipctl ban 192.0.2.1",
        "ipctl unban 192.0.2.1",
        "ipctl banned",
        "ipctl block -i 192.0.2.1 -d 4h -R why",
        "ipctl block -r 192.0.2.0/24 --duration 4h",
        "ipctl unblock --ip 192.0.2.1",
        "ipctl block 192.0.2.1 -o json --config x.toml",
        "ipctl -o json --database-url sqlite://x.db block 192.0.2.1",
        "ipctl check -i 192.0.2.1",
        "ipctl review 1 --dismiss",
    ] {
        let parsed = Cli::try_parse_from(line.split(' '));
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
    for line in [
        "ipctl",
        "ipctl block",
        "ipctl review 1",
        "ipctl review 1 --block --dismiss",
        "ipctl review 1 --dismiss --for 4h",
        "ipctl block 192.0.2.1 --for 4",
        "ipctl logs --limit 0",
        "ipctl scan --to 2h",
        "ipctl -o xml list-blocked",
    ] {
        assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
    let typo = Cli::try_parse_from(["ipctl", "blok", "192.0.2.1"]).unwrap_err().to_string();
    assert!(typo.contains("'block'"), "{typo}");
}

#[test]
fn instants_are_read_as_people_write_them() {
    let at = |text: &str| Some(Instant::At(text.parse().unwrap()));
    for (text, expected) in [
        ("2h", Some(Instant::Ago(TimeDelta::hours(2)))),
        ("now", Some(Instant::Ago(TimeDelta::zero()))),
        ("2026-11-22", at("2026-11-22T00:00:00Z")),
        ("2026-11-22T17:00:00Z", at("2026-11-22T17:00:00Z")),
        ("2026-11-22T17:00:00+02:00", at("2026-11-22T15:00:00Z")),
        ("2026-11-22 17:00", at("2026-11-22T17:00:00Z")),
        ("2026-11-22 17:00:05+02:00", at("2026-11-22T15:00:05Z")),
        ("2026-11-22 17:00-05:30", at("2026-11-22T22:30:00Z")),
        ("2026-11-22 17:00:05Z", at("2026-11-22T17:00:05Z")),
        ("2026-11-22T17:00:05", at("2026-11-22T17:00:05Z")),
        ("yesterday", None),
        ("0000-01-01", None),
        ("9999-12-31", None),
        ("2026-02-30", None),
        ("24:00", None),
    ] {
        assert_eq!(text.parse::<Instant>().ok(), expected, "{text}");
    }
}
