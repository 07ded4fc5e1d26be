//! The `api` binary as child processes, in both sizes, and what a test asks of them.
#![expect(dead_code, reason = "each test binary uses its own part")]
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod launch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt as _;
use ipwarden_core::db::list_changes;
use ipwarden_core::db::request_logs::{self, Filter, Logged};
use ipwarden_core::db::{Create, Db};
use ipwarden_core::detect::Window;
use ipwarden_core::keys::{self, ADMIN_KEY_FILE, Role};
use ipwarden_core::lists::Actor;
use ipwarden_core::scan::{self, Outcome, Terms};
use ipwarden_engine::clock::Moment;
use ipwarden_testbed::{PostgresServer, RedisServer, TestDatabase};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

pub(crate) use self::launch::{Launch, Replica};

/// A goal of one second is asserted at ten times as much.
pub(crate) const TEN_TIMES_A_SECOND: Duration = Duration::from_secs(10);
/// What should come soon, on a machine that does a lot of other work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Replicas on one store.
pub(crate) struct Bed {
    pub(crate) size: &'static str,
    // The replicas end before what they stand on.
    pub(crate) replicas: Vec<Replica>,
    pub(crate) db: Db,
    pub(crate) admin: String,
    pub(crate) redis: Option<RedisServer>,
    _database: Option<TestDatabase>,
}

impl Bed {
    /// One process on a SQLite file in its own directory.
    pub(crate) async fn embedded(launch: Launch) -> Bed {
        let replica = launch.start().await;
        let file = replica.dir().join("data/ipwarden.db");
        let db = Db::open_sqlite(&file, Create::Never).await.unwrap();
        let admin = admin_key(&[&replica]);
        Bed { size: "embedded", replicas: vec![replica], db, admin, redis: None, _database: None }
    }

    /// Some processes on one PostgreSQL and one Redis; each is set up by `settings`.
    pub(crate) async fn fleet(count: usize, settings: impl Fn(Launch) -> Launch) -> Bed {
        let redis = ipwarden_testbed::redis_private().unwrap();
        Bed::on_postgres(count, Some(redis), settings).await
    }

    /// The same, with Redis or without.
    pub(crate) async fn on_postgres(
        count: usize,
        redis: Option<RedisServer>,
        settings: impl Fn(Launch) -> Launch,
    ) -> Bed {
        let database = ipwarden_testbed::postgres_database().unwrap();
        Bed::on_database(database, count, redis, settings).await
    }

    /// The same on a PostgreSQL that the test may break.
    pub(crate) async fn on_own_postgres(
        server: &PostgresServer,
        count: usize,
        redis: Option<RedisServer>,
        settings: impl Fn(Launch) -> Launch,
    ) -> Bed {
        Bed::on_database(server.database().unwrap(), count, redis, settings).await
    }

    async fn on_database(
        database: TestDatabase,
        count: usize,
        redis: Option<RedisServer>,
        settings: impl Fn(Launch) -> Launch,
    ) -> Bed {
        let url = database.url().to_owned();
        Bed::on_url(database, &url, count, redis, settings).await
    }

    /// The same on a database that replicas reach by a URL of its own.
    pub(crate) async fn on_url(
        database: TestDatabase,
        url: &str,
        count: usize,
        redis: Option<RedisServer>,
        settings: impl Fn(Launch) -> Launch,
    ) -> Bed {
        let db = Db::postgres(&format!("{url}?application_name=test"), 4).unwrap();
        db.migrate().await.unwrap();
        let mut replicas = Vec::new();
        for _ in 0..count {
            let launch = Launch::default()
                .with("DATABASE_URL", url)
                .with("IPWARDEN_STORE__MAX_CONNECTIONS", "4");
            let launch = match &redis {
                Some(redis) => launch.with("REDIS_URL", redis.url()),
                None => launch,
            };
            replicas.push(settings(launch).start().await);
        }
        let admin = admin_key(&replicas.iter().collect::<Vec<_>>());
        Bed { size: "fleet", replicas, db, admin, redis, _database: Some(database) }
    }

    /// One process of either size, set up alike.
    pub(crate) async fn each(settings: impl Fn(Launch) -> Launch) -> [Bed; 2] {
        let embedded = Bed::embedded(settings(Launch::default())).await;
        [embedded, Bed::fleet(2, settings).await]
    }

    /// The only or the first replica.
    pub(crate) fn first(&self) -> &Replica {
        &self.replicas[0]
    }

    /// The database of a fleet.
    pub(crate) fn database(&self) -> &TestDatabase {
        self._database.as_ref().expect("a fleet")
    }

    /// Runs `ipctl` on the store, and expects success.
    pub(crate) async fn ipctl(&self, arguments: &[&str]) -> String {
        let ran = self.try_ipctl(arguments).await;
        assert!(ran.status.success(), "{arguments:?}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    }

    /// Runs `ipctl` on the store.
    pub(crate) async fn try_ipctl(&self, arguments: &[&str]) -> std::process::Output {
        let api = std::path::Path::new(env!("CARGO_BIN_EXE_api"));
        let program = api.with_file_name("ipctl");
        assert!(program.exists(), "no {}: cargo build -p ipwarden-ipctl", program.display());
        let mut command = std::process::Command::new(program);
        command.args(arguments).current_dir(self.first().dir()).env_clear();
        if let Some(database) = &self._database {
            command.env("DATABASE_URL", database.url());
        }
        if let Some(redis) = &self.redis {
            command.env("REDIS_URL", redis.url());
        }
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    /// Makes a key behind the API's back; the replicas hear of it as of any change.
    pub(crate) async fn key(&self, role: Role) -> String {
        let actor = Actor { name: "cli:test".to_owned(), address: None };
        let name = format!("a {role}");
        let (_, key, _) = keys::create(&self.db, name, role, actor, now()).await.unwrap();
        for replica in &self.replicas {
            eventually(PATIENCE, "the key counts", async || {
                let (status, _) =
                    replica.stranger(Method::GET, "/api/v1/blocks", Some(&key), None).await;
                (status != StatusCode::UNAUTHORIZED).then_some(())
            })
            .await;
        }
        key
    }

    /// The version of the lists in the store: replicas hear of it later.
    pub(crate) async fn lists_version(&self) -> i64 {
        self.db.run(|conn| list_changes::version(conn).boxed()).await.unwrap()
    }

    /// What the first replica's API answers to the first admin.
    pub(crate) async fn api(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        self.first().control(method, path, Some(&self.admin), body).await
    }

    /// Judges the hours since `began` as if the last of them had ended.
    pub(crate) async fn scan(&self, began: DateTime<Utc>) {
        let hours = (Window::of(began).start(), Window::of(now()).end());
        let after = hours.1 + TimeDelta::seconds(10);
        let terms = Arc::new(Terms::default());
        eventually(TEN_TIMES_A_SECOND, "nobody else scans", async || {
            match scan::run_between(&self.db, &terms, hours, || after).await.unwrap() {
                Outcome::Done(_) => Some(()),
                Outcome::Busy => None,
            }
        })
        .await;
    }

    /// Where the public listeners are.
    pub(crate) fn public_addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(Replica::public_address).collect()
    }

    /// A figure in `/metrics` of all replicas together.
    pub(crate) async fn sum(&self, metric: &str) -> u64 {
        let mut sum = 0;
        for replica in &self.replicas {
            sum += u64::try_from(replica.metric(metric).await).unwrap();
        }
        sum
    }

    /// Rows of the request log.
    pub(crate) async fn logged(&self) -> usize {
        let count = self.db.run(|conn| request_logs::count(conn).boxed()).await.unwrap();
        usize::try_from(count).unwrap()
    }

    /// Rows of the request log of one address.
    pub(crate) async fn logged_of(&self, address: &str) -> i64 {
        let network = address.parse().unwrap();
        self.db.run(move |conn| request_logs::count_of(conn, network).boxed()).await.unwrap()
    }

    /// Waits until the request log has so many rows, and no more. Returns how long it took.
    pub(crate) async fn logs(&self, rows: usize) -> Duration {
        let (_, took) = eventually(TEN_TIMES_A_SECOND, "the log is complete", async || {
            let logged = self.logged().await;
            assert!(logged <= rows, "{logged} rows in the log for {rows} requests");
            (logged == rows).then_some(())
        })
        .await;
        took
    }

    /// The newest records.
    pub(crate) async fn records(&self) -> Vec<Logged> {
        let filter = Filter::default();
        self.db
            .run(move |conn| {
                async move { request_logs::page(conn, &filter, None, 10_000).await }.boxed()
            })
            .await
            .unwrap()
    }
}

fn admin_key(replicas: &[&Replica]) -> String {
    let files = replicas.iter().map(|replica| replica.dir().join("data").join(ADMIN_KEY_FILE));
    let file = files.into_iter().find(|file| file.exists()).expect("one replica made the key");
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

/// Asks again and again until there is an answer. Returns it, and how long that took.
pub(crate) async fn eventually<T>(
    within: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> (T, Duration) {
    let started = tokio::time::Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return (answer, started.elapsed());
        }
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The wall clock.
pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(Moment::now().wall).unwrap()
}

/// A field of an answer, empty if it is not there.
pub(crate) fn field<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// What is left, by the `RateLimit` field.
pub(crate) fn left(answer: &Response) -> Option<u32> {
    let field = field(answer, "ratelimit");
    let (_, rest) = field.split_once(";r=")?;
    rest.split(';').next()?.parse().ok()
}
