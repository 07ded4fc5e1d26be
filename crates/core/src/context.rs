//! The composition root: opens the stores, builds the guard, feeds it, and ships its log.
//!
//! Every process that guards requests has one [`Context`], `api` as well as an application that wraps
//! itself. Commands that only talk to the store use [`open_store`].

mod held_keys;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Guard, Parts};
use ipwarden_engine::pass::Passes;
use ipwarden_engine::quota::Policies;
use ipwarden_engine::rate_limit::{Limiter, LocalOptions, RedisOptions};
use ipwarden_engine::sensitive_path::SensitivePaths;
use ipwarden_engine::spool::{Spool, SpoolOptions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::held_keys::{Held, Opened, follow_keys, open_keys};
use crate::bouncers::LookUps;
use crate::changes::{self, Feed, Feeder, Source};
use crate::config::{Config, StoreUrl};
use crate::db::{Create, Db, DbError, nodes};
use crate::decisions::{self, Decisions};
use crate::forget;
use crate::geo::Geo;
use crate::health::{self, Watch};
use crate::keys::Keys;
use crate::recorder::Recorder;
use crate::redis::RedisPool;
use crate::sessions::Sessions;
use crate::signing::Signer;
use crate::users::{Passwords, Users};

/// How often the files of places are looked at.
const GEO_LOOK: Duration = Duration::from_secs(5);
/// How often a node says that it lives; it counts as dead after three missed beats.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the end of the process waits for what runs beside the requests: it may be waiting for a store
/// that does not answer.
const WIND_UP: Duration = Duration::from_secs(2);
/// How long the end of the process waits for a store that does not answer. The log stays in the spool.
const LAST_SHIPMENT: Duration = Duration::from_secs(4);

/// Everything that a guarding process is made of. Cheap to share behind an [`Arc`].
pub struct Context {
    /// What it was built from.
    pub config: Arc<Config>,
    /// The store.
    pub db: Db,
    /// Redis, in a fleet.
    pub redis: Option<RedisPool>,
    /// Decides.
    pub guard: Arc<Guard>,
    /// Issues and takes passes, if there is a secret for them.
    pub passes: Option<Arc<Passes>>,
    /// Knows where addresses are.
    pub geo: Arc<Geo>,
    /// Knows the API keys.
    pub keys: Arc<Keys>,
    /// What bouncers are told, if there are any.
    pub decisions: Arc<Decisions>,
    /// Which of them asked lately.
    pub look_ups: LookUps,
    /// Knows the people who sign in.
    pub users: Arc<Users>,
    /// Opens their sessions and knows them again.
    pub sessions: Sessions,
    /// Works on their passwords.
    pub passwords: Passwords,
    /// Signs positions of pages, and sessions.
    pub signer: Arc<Signer>,
    /// How the lists in force stand.
    pub feed: Feed,
    /// What went wrong of late.
    pub watch: Arc<Watch>,
    /// Ships the log.
    pub recorder: Arc<Recorder>,
    /// What this process is called.
    pub node: Arc<str>,
    /// Where the first admin key was written, if this start made it.
    pub first_admin_key: Option<PathBuf>,
    stopping: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Opens the store that a configuration names.
///
/// # Errors
/// [`DbError::Missing`] when there is none and `create` forbids making one. A PostgreSQL that does not
/// answer is found out when it is first used.
pub async fn open_store(config: &Config, create: Create) -> Result<Db, DbError> {
    match config.store_url() {
        StoreUrl::Sqlite(path) => {
            if let (Create::IfMissing, Some(directory)) = (create, path.parent()) {
                std::fs::create_dir_all(directory).map_err(|error| {
                    DbError::Unreachable(format!("{}: {error}", directory.display()))
                })?;
            }
            Db::open_sqlite(&path, create).await
        }
        StoreUrl::Postgres(url) => Db::postgres(&url, connections(config)),
    }
}

fn connections(config: &Config) -> usize {
    usize::try_from(config.store.max_connections).unwrap_or(usize::MAX)
}

impl Context {
    /// Opens everything and starts to feed the guard and to ship its log.
    ///
    /// A PostgreSQL or Redis that does not answer is no error: the guard goes on with what it has.
    ///
    /// # Errors
    /// When the data directory cannot be used or belongs to another process, or the store's schema is
    /// older than this program.
    pub async fn open(config: Config, now: Moment) -> anyhow::Result<Context> {
        let data_dir = std::path::absolute(&config.data_dir)?;
        std::fs::create_dir_all(&data_dir)
            .with_context(|| format!("data_dir {} cannot be made", data_dir.display()))?;
        let spool = open_spool(&config, &data_dir)
            .with_context(|| format!("data_dir {} cannot be used", data_dir.display()))?;
        // Only now that no other process can be about to write it.
        let copy = changes::Copy::new(data_dir.join(changes::COPY)).read_ahead();

        let db = open_store(&config, Create::IfMissing).await?;
        let answers = prepare_schema(&db).await?;
        let redis = config.redis_url.clone().map(RedisPool::new);

        let guard = Guard::new(guard_parts(&config, spool)?, now);
        let geo = open_geo(&config, &data_dir, redis.clone()).await?;
        let node: Arc<str> = config.node_name().into();
        let recorder = Recorder::new(guard.spool().clone(), db.clone(), geo.clone(), node.clone());
        let mut feeder = Feeder::of(guard.clone(), db.clone(), copy);
        let Opened { first_admin_key, held, keys_loaded } = match answers {
            true => {
                feeder.start().await;
                open_keys(&db, &data_dir, date(now)).await?
            }
            // Whoever waits for each of these in turn starts late: what runs beside the requests asks.
            false => {
                feeder.load_copy().await;
                Opened::default()
            }
        };

        let passes = config.gate.pass_secret.as_ref();
        let passes = passes.map(|secret| Arc::new(Passes::new(secret.reveal(), now)));
        let context = Context {
            config: Arc::new(config),
            decisions: Arc::new(Decisions::of(db.clone())),
            db,
            redis,
            guard,
            passes,
            geo,
            look_ups: LookUps::default(),
            keys: held.keys.clone(),
            users: held.users.clone(),
            sessions: Sessions::new(held.signer.clone(), held.users.clone()),
            passwords: Passwords::default(),
            signer: held.signer.clone(),
            feed: feeder.feed(),
            watch: Arc::default(),
            recorder: Arc::new(recorder),
            node,
            first_admin_key,
            stopping: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        context.start(feeder, held, keys_loaded, now);
        Ok(context)
    }

    /// Starts what runs beside the requests. The list is all there is.
    fn start(&self, feeder: Feeder, held: Held, keys_loaded: bool, now: Moment) {
        let (stop, redis_url) = (&self.stop, self.config.redis_url.clone());
        self.tasks.spawn(feeder.run(redis_url, stop.clone()));
        self.tasks.spawn(ship(self.recorder.clone(), stop.clone()));
        let (db, feed) = (self.db.clone(), self.feed.clone());
        // Where the first one goes if this start could not ask whether there are any.
        let first_into = (!keys_loaded).then(|| self.config.data_dir.clone());
        self.tasks.spawn(follow_keys(held, db, feed, stop.clone(), first_into));
        let (keys, feed) = (self.keys.clone(), self.feed.clone());
        self.tasks.spawn(decisions::follow(self.decisions.clone(), keys, feed, stop.clone()));
        let (watch, guard, db) = (self.watch.clone(), self.guard.clone(), self.db.clone());
        self.tasks.spawn(health::follow(watch, guard, db, stop.clone()));
        self.tasks.spawn(follow_files(self.geo.clone(), stop.clone()));
        let guard = self.guard.clone();
        let beat = heartbeat(self.db.clone(), self.process(), guard, date(now), stop.clone());
        self.tasks.spawn(beat);
        self.tasks.spawn(forget::follow(self.as_node(), stop.clone()));
        self.tasks.close();
    }

    /// Has a change of the lists reach this process and every other at once. The change is committed;
    /// should a hint be lost, the next poll finds it.
    pub fn announce(&self, version: Option<i64>) {
        let Some(version) = version else { return };
        self.feed.nudge();
        if let Some(redis) = self.redis.clone() {
            self.tasks.spawn(async move {
                if let Err(error) = changes::announce(&redis, version).await {
                    tracing::debug!(%error, "no hint was sent");
                }
            });
        }
    }

    /// What this process is called among the replicas: several may run on one host.
    fn process(&self) -> Arc<str> {
        format!("{}#{}", self.node, std::process::id()).into()
    }

    /// What this process holds that may be of somebody.
    fn as_node(&self) -> forget::Node {
        forget::Node {
            name: self.process(),
            db: self.db.clone(),
            guard: self.guard.clone(),
            geo: self.geo.clone(),
            decisions: self.decisions.clone(),
            redis: self.redis.clone(),
            feed: self.feed.clone(),
        }
    }

    /// Runs something beside the requests until the context shuts down.
    pub fn spawn<F>(&self, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task(self.stop.clone()));
    }

    /// Says that no new requests are wanted: readiness goes first.
    pub fn begin_shutdown(&self) {
        self.stopping.cancel();
    }

    /// Whether [`Context::begin_shutdown`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Waits for [`Context::begin_shutdown`]: what goes on as long as its reader likes ends there.
    pub async fn until_stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Whether this process can decide: it has lists, from the store or from its copy on disk.
    pub fn is_ready(&self) -> bool {
        !self.is_stopping() && self.feed.status().borrow().source != Source::None
    }

    /// Stops what runs beside the requests and ships the log. Call it when the last request was
    /// answered and the workers are gone; a context without one ships what an earlier process left.
    pub async fn shutdown(&self) {
        self.begin_shutdown();
        self.stop.cancel();
        if tokio::time::timeout(WIND_UP, self.tasks.wait()).await.is_err() {
            tracing::debug!("something waits for the store; it ends with the process");
        }
        let shipping = self.recorder.ship_all(date(Moment::now()));
        match tokio::time::timeout(LAST_SHIPMENT, shipping).await {
            Ok(Ok(records)) => tracing::debug!(records, "the log is shipped"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the rest of the log stays in the spool until the next start");
            }
            Err(_) => tracing::warn!("the store is slow; the rest of the log stays in the spool"),
        }
        let node = self.process();
        let leaving = self.db.with_timeout(Duration::from_secs(1));
        let left = leaving.run(move |conn| async move { nodes::leave(conn, &node).await }.boxed());
        if let Err(error) = left.await {
            tracing::debug!(%error, "the heartbeat will run out by itself");
        }
    }
}

fn open_spool(config: &Config, data_dir: &Path) -> anyhow::Result<Spool> {
    let log = &config.request_log;
    let options = SpoolOptions {
        max_bytes: log.spool_bytes,
        durability: log.durability,
        keep_damaged: log.retention,
        ..SpoolOptions::default()
    };
    Ok(Spool::open(data_dir, options)?)
}

/// An embedded store is brought up to date here; a fleet's by `ipctl migrate`. `false` if the store does
/// not answer.
async fn prepare_schema(db: &Db) -> anyhow::Result<bool> {
    if db.is_sqlite() {
        let applied = db.migrate().await?;
        if !applied.is_empty() {
            tracing::info!(migrations = %applied.join(", "), "the store is up to date");
        }
        return Ok(true);
    }
    match db.check_schema().await {
        Err(error) if error.is_unreachable() => {
            tracing::warn!(%error, "going on with the lists of the last start");
            Ok(false)
        }
        outcome => Ok(outcome.map(|()| true)?),
    }
}

fn guard_parts(config: &Config, spool: Spool) -> anyhow::Result<Parts> {
    let memory = usize::try_from(config.rate_limit.memory_bytes).unwrap_or(usize::MAX);
    let local = LocalOptions { max_bytes: memory };
    let limiter = match &config.redis_url {
        Some(url) => Limiter::redis(url.clone(), RedisOptions { local, ..RedisOptions::default() }),
        None => Limiter::local(local),
    };
    Ok(Parts {
        resolver: config.client_ip.resolver()?,
        policies: Policies::new(config.quotas.clone())?,
        limiter,
        sensitive_paths: SensitivePaths::new(&config.scan.sensitive_paths),
        spool,
        ipv6_prefix: config.client_ip.ipv6_prefix,
    })
}

/// The files of places that a configuration names, or the directory where they are looked for.
pub fn geo_files(config: &Config) -> Vec<PathBuf> {
    match config.geo.files.is_empty() {
        true => vec![PathBuf::from("geoip")],
        false => config.geo.files.clone(),
    }
}

async fn open_geo(
    config: &Config,
    data_dir: &Path,
    redis: Option<RedisPool>,
) -> anyhow::Result<Arc<Geo>> {
    let (files, data_dir) = (geo_files(config), data_dir.to_owned());
    let open = move || Arc::new(Geo::open(files, Some(&data_dir), redis));
    Ok(tokio::task::spawn_blocking(open).await?)
}

async fn ship(recorder: Arc<Recorder>, stop: CancellationToken) {
    recorder.run(&stop).await;
}

async fn follow_files(geo: Arc<Geo>, stop: CancellationToken) {
    while pause(GEO_LOOK, &stop).await {
        let geo = geo.clone();
        // Copying and checking a file of 66 MB takes its time.
        let looked = tokio::task::spawn_blocking(move || geo.reload_if_changed()).await;
        if looked.is_ok_and(|changed| changed) {
            tracing::info!("the files of places were replaced");
        }
    }
}

async fn heartbeat(
    db: Db,
    node: Arc<str>,
    guard: Arc<Guard>,
    started_at: DateTime<Utc>,
    stop: CancellationToken,
) {
    loop {
        let (node, now) = (node.clone(), date(Moment::now()));
        let beat = db.run(move |conn| {
            async move {
                let now = conn.clock(now).await?;
                nodes::beat(conn, &node, "api", started_at, now).await
            }
            .boxed()
        });
        match beat.await {
            // An embedded process is alone: another is one that was killed.
            Ok(_) if db.is_sqlite() => {}
            Ok(live) => guard.limiter().set_live_replicas(u32::try_from(live).unwrap_or(1)),
            // The last known number holds.
            Err(error) => tracing::debug!(%error, "no heartbeat"),
        }
        if !pause(HEARTBEAT, &stop).await {
            return;
        }
    }
}

/// Waits; `false` when it is time to stop.
async fn pause(period: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(period) => true,
    }
}

fn date(now: Moment) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(now.wall).unwrap_or_default()
}
