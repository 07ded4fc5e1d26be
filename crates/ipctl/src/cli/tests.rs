use chrono::TimeDelta;
use clap::{CommandFactory, Parser};

use super::*;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

/// What `--help` answers for every command, on a terminal of 80 characters.
#[test]
fn help_says_what_there_is() {
    fn names(command: &clap::Command, before: &[String], all: &mut Vec<Vec<String>>) {
        let mut path = before.to_vec();
        path.push(command.get_name().to_owned());
        all.push(path.clone());
        let is_visible = |one: &&clap::Command| one.get_name() != "help";
        for inner in command.get_subcommands().filter(is_visible) {
            names(inner, &path, all);
        }
    }
    let mut all = Vec::new();
    names(&Cli::command(), &[], &mut all);
    let mut text = String::new();
    for path in all {
        let command = Cli::command().term_width(80);
        let asked = path.iter().map(String::as_str).chain(["--help"]);
        let help = command.try_get_matches_from(asked).unwrap_err();
        assert_eq!(help.exit_code(), 0);
        text += &format!("===== {} --help\n{help}\n", path.join(" "));
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
