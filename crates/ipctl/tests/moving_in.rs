//! What other programs remember, taken over from files that those programs made.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Ran, Store, every_store};
use serde_json::{Value, json};

/// Python with Django in it, as `.ci/test` makes it.
fn python() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let python = target.unwrap_or(workspace).join("django/bin/python");
    assert!(python.is_file(), "there is no {}: `bash .ci/test` makes it", python.display());
    python
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; `bash .ci/test` installs what the tests need")
    });
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn lines(report: &Value) -> Vec<String> {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    let rows = report.as_array().unwrap().iter();
    rows.map(|row| {
        let why = text(row, "why");
        let told = format!("{} {} {}", text(row, "what"), row["number"], text(row, "outcome"));
        if why.is_empty() { told } else { format!("{told}: {why}") }
    })
    .collect()
}

#[tokio::test]
async fn the_tables_of_django_are_taken_over_once() {
    every_store(async |store: Store| {
        let postgres = ipwarden_testbed::postgres_database().unwrap();
        let file = store.dir.path().join("db.sqlite3");
        let (kind, name, url) = match store.name {
            "sqlite" => ("sqlite", file.display().to_string(), "sqlite:///db.sqlite3".to_owned()),
            _ => ("postgres", postgres.url().to_owned(), postgres.url().to_owned()),
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/moving_in/django_tables.py");
        let fill = || succeed(Command::new(python()).arg(&script).args([kind, &name]));
        fill();
        let line = ["migrate-from", "django", "--url", &url];
        let rehearsed = store.json(&[&line[..], &["--dry-run"]].concat());
        let taken = store.json(&line);
        assert_eq!(lines(&rehearsed), lines(&taken));
        assert_eq!(
            lines(&taken),
            [
                "blocks 2 taken",
                "blocks 1 left_out: 127.0.0.1 touches 127.0.0.0/8, the loopback of this machine",
                "suspicious addresses 2 taken",
                "suspicious addresses 1 left_out: its reason names neither a volume nor a path",
                "requests 121 taken",
            ]
        );
        let logged = store.json(&["logs", "--ip", "203.0.113.9", "-n", "1"]);
        assert_eq!(logged[0]["at"], "2026-11-20T10:01:59.123456Z");
        assert_eq!((&logged[0]["city"], &logged[0]["country"]), (&json!("Uppsala"), &json!("SE")));
        let admin = store.json(&["logs", "--ip", "2001:db8::7"]);
        assert_eq!((&admin[0]["path"], &admin[0]["sensitive"]), (&json!("/admin/"), &json!(true)));
        let found = store.json(&["list-suspicious"]);
        let of = |address: &str| {
            let rows = found.as_array().unwrap().iter();
            rows.filter(|row| row["address"] == address).cloned().collect::<Vec<_>>()
        };
        let volume = &of("198.51.100.4")[0];
        assert_eq!((&volume["rule"], &volume["hits"]), (&json!("volume"), &json!(2)));
        assert_eq!(of("198.51.100.5")[0]["rule"], "sensitive_path");
        assert_eq!(of("203.0.113.9")[0]["hits"], 120, "the scan judged what came in");

        let again = store.json(&line);
        let known = ["blocks 2 known", "suspicious addresses 2 known", "requests 121 known"];
        let again: Vec<String> =
            lines(&again).into_iter().filter(|line| !line.contains("left_out")).collect();
        assert_eq!(again, known);
        // The old application still runs.
        fill();
        assert!(lines(&store.json(&line)).contains(&"requests 1 taken".to_owned()));
        if kind == "sqlite" {
            // It has thrown rows away since: what is left cannot be told from what was taken.
            fill();
            let ran = store.run(&line);
            assert_eq!(ran.code, 1, "{ran:?}");
            assert!(ran.stderr.contains("would double what is here"), "{ran:?}");
        }
        let other = store.run(&["migrate-from", "django", "--url", &url, "--app", "shop"]);
        assert_eq!(other.code, 1, "{other:?}");
        assert!(other.stderr.contains("shop_requestlog"), "{other:?}");
    })
    .await;
}

/// A fail2ban of our own, which ends with the test.
struct Fail2ban<'a>(&'a Path);

impl Fail2ban<'_> {
    fn start(dir: &Path) -> Fail2ban<'_> {
        let at = |name: &str| dir.join(name).display().to_string();
        let config = format!(
            "[Definition]\nloglevel = INFO\nlogtarget = {}\nsyslogsocket = auto\nsocket = {}\n\
             pidfile = {}\ndbfile = {}\ndbpurgeage = 1d\ndbmaxmatches = 10\nallowipv6 = auto\n\
             [Thread]\nstacksize = 0\n",
            at("log"),
            at("sock"),
            at("pid"),
            at("fail2ban.sqlite3")
        );
        std::fs::write(dir.join("fail2ban.conf"), config).unwrap();
        std::fs::write(dir.join("jail.conf"), "[DEFAULT]\n").unwrap();
        let own = Fail2ban(dir);
        own.tell(&["start"]);
        own
    }

    fn tell(&self, words: &[&str]) -> String {
        let mut command = Command::new("fail2ban-client");
        let at = |name: &str| self.0.join(name);
        command.arg("-c").arg(self.0).arg("-s").arg(at("sock")).arg("-p").arg(at("pid"));
        command.args(words);
        let output = command.output().unwrap_or_else(|error| {
            panic!("fail2ban-client: {error}; `bash .ci/test` installs what the tests need")
        });
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "another program takes its time")]
    fn ban(&self, jail: &str, addresses: &[&str]) {
        self.tell(&[&["set", jail, "banip"], addresses].concat());
        let until = Instant::now() + Duration::from_secs(20);
        while !addresses.iter().all(|address| self.tell(&["status", jail]).contains(address)) {
            assert!(Instant::now() < until, "{}", self.tell(&["status", jail]));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Fail2ban<'_> {
    fn drop(&mut self) {
        self.tell(&["stop"]);
    }
}

#[tokio::test]
async fn bans_of_fail2ban_are_taken_over_with_their_ends() {
    every_store(async |store: Store| {
        let dir = store.dir.path().join("fail2ban");
        std::fs::create_dir(&dir).unwrap();
        {
            let fail2ban = Fail2ban::start(&dir);
            fail2ban.tell(&["add", "sshd", "polling"]);
            fail2ban.tell(&["set", "sshd", "bantime", "7200"]);
            fail2ban.tell(&["start", "sshd"]);
            fail2ban.ban("sshd", &["203.0.113.9", "2001:db8::7", "127.0.0.1"]);
            fail2ban.tell(&["set", "sshd", "bantime", "-1"]);
            fail2ban.ban("sshd", &["203.0.113.10"]);
        }
        let line = ["migrate-from", "fail2ban", "fail2ban/fail2ban.sqlite3"];
        let bytes = std::fs::read(dir.join("fail2ban.sqlite3")).unwrap();
        let taken = store.json(&line);
        assert_eq!(
            lines(&taken),
            [
                "blocks 3 taken",
                "blocks 1 left_out: 127.0.0.1 touches 127.0.0.0/8, the loopback of this machine",
            ]
        );
        let blocked = store.json(&["list-blocked"]);
        let of = |address: &str| {
            let mut rows = blocked.as_array().unwrap().iter();
            rows.find(|row| row["network"] == address).unwrap().clone()
        };
        assert_eq!(of("203.0.113.10")["expires_at"], Value::Null);
        assert_eq!(of("203.0.113.9")["reason"], "fail2ban: sshd");
        assert_eq!(of("203.0.113.9")["origin"], "list:fail2ban");
        let ends: chrono::DateTime<chrono::Utc> =
            of("2001:db8::7")["expires_at"].as_str().unwrap().parse().unwrap();
        let left = (ends - common::now()).num_seconds();
        assert!((7_000..=7_200).contains(&left), "{left}");
        assert_eq!(lines(&store.json(&line))[0], "blocks 3 known");
        let now = std::fs::read(dir.join("fail2ban.sqlite3")).unwrap();
        assert!(now == bytes, "it is only read");
        let none = store.run(&["migrate-from", "fail2ban", "none.sqlite3"]);
        assert_eq!(none.code, 1, "{none:?}");
        assert!(none.stderr.contains("there is no such file"), "{none:?}");
    })
    .await;
}

#[tokio::test]
async fn decisions_of_crowdsec_are_taken_over_and_the_rest_is_told() {
    every_store(async |store: Store| {
        let raw = "id,source,ip,reason,action,country,as,events_count,expiration,simulated,alert_id\n\
            4,crowdsec,Ip:203.0.113.9,crowdsecurity/ssh-bf,ban,FR,64496 Example,6,3h51m57.12s,false,7\n\
            5,cscli,Range:198.51.100.0/24,manual,ban,,,1,167h59m59s,false,8\n\
            7,cscli,Ip:192.0.2.2,x,captcha,,,1,1h,false,10\n";
        std::fs::write(store.dir.path().join("decisions.csv"), raw).unwrap();
        let line = ["migrate-from", "crowdsec", "decisions.csv"];
        let rehearsed: Ran = store.run(&[&line[..], &["--dry-run"]].concat());
        assert_eq!(rehearsed.code, 0, "{rehearsed:?}");
        assert_eq!(store.json(&["list-blocked"]), json!([]));
        insta::allow_duplicates! {
            insta::assert_snapshot!("migrate-from-crowdsec", store.done(&line));
        }
        assert_eq!(lines(&store.json(&line))[0], "blocks 2 known", "the file is as old as it was");
        std::fs::write(store.dir.path().join("bad.json"), "{\"message\":\"forbidden\"}").unwrap();
        let bad = store.run(&["migrate-from", "crowdsec", "bad.json"]);
        assert_eq!(bad.code, 2, "{bad:?}");
        assert!(bad.stderr.contains("cscli decisions list -o json"), "{bad:?}");
    })
    .await;
}
