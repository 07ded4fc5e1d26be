//! The real program on a fresh store of each kind.
#![expect(dead_code, reason = "each test binary uses its own part")]
#![expect(clippy::unwrap_used, reason = "only tests come here")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_core::db::audit_log::{self, Audited};
use ipwarden_core::db::{Create, Db};
use ipwarden_testbed::TestDatabase;
use serde_json::Value;
use tempfile::TempDir;

/// A store of its own for one test, and a directory to run in; gone when dropped.
pub(crate) struct Store {
    pub(crate) name: &'static str,
    pub(crate) db: Db,
    pub(crate) url: String,
    pub(crate) dir: TempDir,
    // Kept for as long as the test may connect.
    database: Option<TestDatabase>,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs one test on SQLite and on PostgreSQL.
pub(crate) async fn every_store(test: impl AsyncFn(Store)) {
    for store in stores().await {
        eprintln!("on {}", store.name);
        store.db.migrate().await.unwrap();
        test(store).await;
    }
}

/// Two stores without a schema.
pub(crate) async fn stores() -> [Store; 2] {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let sqlite = Db::open_sqlite(&path, Create::IfMissing).await.unwrap();
    let database = ipwarden_testbed::postgres_database().unwrap();
    let postgres = Db::postgres(database.url(), 4).unwrap();
    [
        Store {
            name: "sqlite",
            db: sqlite,
            url: format!("sqlite://{}", path.display()),
            dir,
            database: None,
        },
        Store {
            name: "postgres",
            db: postgres,
            url: database.url().to_owned(),
            dir: tempfile::tempdir().unwrap(),
            database: Some(database),
        },
    ]
}

/// `ipctl` in `dir`, with nothing of this process's environment.
pub(crate) fn ipctl(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipctl"));
    command.current_dir(dir).env_clear().env("TZ", "UTC0").stdin(Stdio::null());
    command
}

/// Runs a command to its end, with some input.
pub(crate) fn finish(mut command: Command, input: &[u8]) -> Ran {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who fails early reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Ran {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

impl Store {
    /// `ipctl` on this store.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ipctl(self.dir.path());
        command.env("DATABASE_URL", &self.url).args(arguments);
        command
    }

    /// Runs `ipctl` on this store.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.command(arguments), b"")
    }

    /// Runs it and expects success; returns what it wrote to standard output.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran.stdout
    }

    /// Runs it with `-o json` and expects success and JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.done(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Everything that was audited, newest first.
    pub(crate) async fn audit(&self) -> Vec<Audited> {
        self.db.run(|conn| audit_log::page(conn, None, 100_000).boxed()).await.unwrap()
    }
}

/// The time now, for rows that a running program has to see as fresh.
#[expect(clippy::disallowed_methods, reason = "the program under test reads the same clock")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}
