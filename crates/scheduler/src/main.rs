//! The scheduler of a fleet: judges every hour once, however many of it run, and keeps the store tidy.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use ipwarden_core::config::{self, Config, StoreUrl};
use ipwarden_core::db::{Create, Db};
use ipwarden_core::logging;
use ipwarden_core::redis::RedisPool;
use ipwarden_engine::clock::Moment;
use ipwarden_scheduler::Work;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Scans the request log every hour and keeps the store tidy. Any number may run; one acts.
#[derive(Parser)]
#[command(name = "scheduler", version, about)]
struct Arguments {
    /// The configuration file; without it `ipwarden.toml` in this directory, if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The store: sqlite://path or postgres://user@host/database
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let flags: Vec<(&str, &str)> =
        arguments.database_url.iter().map(|url| ("database_url", url.as_str())).collect();
    let environment = config::process_environment();
    let loaded = match config::load_with_flags(arguments.config.as_deref(), environment, &flags) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("scheduler: {error}");
            return ExitCode::from(config::EXIT_CODE);
        }
    };
    logging::start(&loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match run(&loaded.config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scheduler: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: &Config) -> anyhow::Result<()> {
    let db = open_store(config).await?;
    match db.check_schema().await {
        // A store that is away comes back; an old schema does not change by waiting.
        Err(error) if error.is_unreachable() => {
            tracing::warn!(%error, "the jobs wait for the store")
        }
        outcome => outcome?,
    }
    let redis = config.redis_url.clone().map(RedisPool::new);
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("no signals can be received")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no signals can be received")?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
    });
    tracing::info!("the jobs of this scheduler begin");
    ipwarden_scheduler::run(Work::of(config, db, redis, Moment::now()), stop).await?;
    Ok(())
}

async fn open_store(config: &Config) -> anyhow::Result<Db> {
    let connections = usize::try_from(config.store.max_connections)?;
    Ok(match config.store_url() {
        // The service makes its store; a typo here must not make another.
        StoreUrl::Sqlite(path) => Db::open_sqlite(&path, Create::Never).await?,
        StoreUrl::Postgres(url) => Db::postgres(&url, connections)?,
    })
}
