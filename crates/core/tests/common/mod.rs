//! A fresh store of each kind for every test.
#![expect(dead_code, reason = "each test binary uses its own part")]
#![expect(clippy::unwrap_used, reason = "only tests come here")]

use ipwarden_core::db::{Create, Db};
use tempfile::TempDir;

/// A store of its own for one test; gone when dropped.
pub(crate) struct Store {
    pub(crate) name: &'static str,
    pub(crate) db: Db,
    /// `None` for SQLite.
    pub(crate) postgres_url: Option<String>,
    pub(crate) dir: TempDir,
    /// Kept for as long as the test may connect; `None` for SQLite.
    pub(crate) database: Option<ipwarden_testbed::TestDatabase>,
}

/// Two stores without a schema.
pub(crate) async fn empty_stores() -> Vec<Store> {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
    let database = ipwarden_testbed::postgres_database().unwrap();
    let postgres = Db::postgres(database.url(), 8).unwrap();
    vec![
        Store { name: "sqlite", db: sqlite, postgres_url: None, dir, database: None },
        Store {
            name: "postgres",
            db: postgres,
            postgres_url: Some(database.url().to_owned()),
            dir: tempfile::tempdir().unwrap(),
            database: Some(database),
        },
    ]
}

/// Runs one test on SQLite and on PostgreSQL.
pub(crate) async fn every_store(test: impl AsyncFn(Store)) {
    for store in empty_stores().await {
        eprintln!("on {}", store.name);
        store.db.migrate().await.unwrap();
        test(store).await;
    }
}
