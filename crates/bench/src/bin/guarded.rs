//! The same handler behind the guard, with the whole product beside it: recorder, store, places, feeder.
//!
//! Settings come from the environment and `ipwarden.toml`, as for `api`. A second listener shows how it
//! does, and is not guarded.

use std::path::Path;
use std::sync::Arc;

use actix_web::{App, HttpServer, web};
use clap::Parser;
use ipwarden_bench::{HEAD_LIMIT, addresses, handler, listen};
use ipwarden_core::config::{Config, load, process_environment};
use ipwarden_core::context::Context;
use ipwarden_core::logging;
use ipwarden_core::recorder::Recorder;
use ipwarden_engine::blocklist::Lists;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::{Guard, Parts, RequestHead};
use ipwarden_engine::quota::Policies;
use ipwarden_engine::rate_limit::{Limiter, LocalOptions, RedisOptions};
use ipwarden_engine::sensitive_path::SensitivePaths;
use ipwarden_engine::spool::{Spool, SpoolOptions};
use ipwarden_guard::GuardMiddleware;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// How many networks are on the blocklist, none of which holds a client
    #[arg(long, default_value_t = 0)]
    blocked: usize,
    /// Every client is blocked, too
    #[arg(long)]
    everyone: bool,
    /// So many numbered clients have been here already
    #[arg(long, default_value_t = 0)]
    clients: u32,
    /// No store: records stay in the spool, where the oldest go when it is full
    #[arg(long)]
    spool_only: bool,
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

/// What is measured, and what has to be asked about it.
struct Subject {
    guard: Arc<Guard>,
    recorder: Option<Arc<Recorder>>,
    _context: Option<Context>,
}

#[expect(clippy::print_stdout, reason = "who starts this reads where it listens")]
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = load(None, process_environment())?.config;
    logging::start(&config.log);
    let subject = match arguments.spool_only {
        true => without_store(&config)?,
        false => with_store(config).await?,
    };
    subject.guard.set_lists(lists(&arguments));
    visited(&subject.guard, arguments.clients).await;

    let guard = GuardMiddleware::new(subject.guard.clone());
    let (listener, public) = listen()?;
    let served = HttpServer::new(move || App::new().configure(handler).wrap(guard.clone()))
        .workers(arguments.workers)
        .client_request_timeout(HEAD_LIMIT)
        .listen(listener)?
        .run();
    let (listener, control) = listen()?;
    let subject = web::Data::new(subject);
    let shown = HttpServer::new(move || {
        App::new().app_data(subject.clone()).route("/", web::get().to(state))
    })
    .workers(1)
    .disable_signals()
    .listen(listener)?
    .run();
    println!("control {control}\npublic {public}");
    // The first to end is the guarded one, by a signal.
    tokio::select! {
        ended = served => ended?,
        ended = shown => ended?,
    }
    Ok(())
}

async fn with_store(config: Config) -> anyhow::Result<Subject> {
    let context = Context::open(config, Moment::now()).await?;
    let (guard, recorder) = (context.guard.clone(), Some(context.recorder.clone()));
    Ok(Subject { guard, recorder, _context: Some(context) })
}

fn without_store(config: &Config) -> anyhow::Result<Subject> {
    let data_dir: &Path = &config.data_dir;
    std::fs::create_dir_all(data_dir)?;
    let spool_options =
        SpoolOptions { max_bytes: config.request_log.spool_bytes, ..SpoolOptions::default() };
    let limiter = match &config.redis_url {
        Some(url) => Limiter::redis(url.clone(), RedisOptions::default()),
        None => Limiter::local(LocalOptions::default()),
    };
    let parts = Parts {
        resolver: config.client_ip.resolver()?,
        policies: Policies::new(config.quotas.clone())?,
        limiter,
        sensitive_paths: SensitivePaths::new(&config.scan.sensitive_paths),
        spool: Spool::open(data_dir, spool_options)?,
        ipv6_prefix: config.client_ip.ipv6_prefix,
    };
    Ok(Subject { guard: Guard::new(parts, Moment::now()), recorder: None, _context: None })
}

/// One request of each, counted under the policy of the benchmark and not recorded.
async fn visited(guard: &Arc<Guard>, clients: u32) {
    let worker = guard.worker();
    let request =
        |peer| RequestHead { peer, forwarded: &[], method: "GET", path: "/", identity: None };
    for client in 0..clients {
        worker.admit(&request(addresses::numbered(client)), Moment::now()).await;
    }
}

fn lists(arguments: &Arguments) -> Lists {
    let everyone = addresses::everyone().into_iter().filter(|_| arguments.everyone);
    let blocked = addresses::blocked(arguments.blocked).into_iter().chain(everyone);
    Lists::build(0, addresses::entries(blocked), [])
}

async fn state(subject: web::Data<Subject>) -> web::Json<serde_json::Value> {
    let (counts, spool) = (subject.guard.counts(), subject.guard.spool().status());
    let limiter = subject.guard.limiter().state();
    web::Json(serde_json::json!({
        "allowed": counts.allowed,
        "blocked": counts.blocked,
        "throttled": counts.throttled,
        "shipped": subject.recorder.as_ref().map(|recorder| recorder.status().shipped),
        "waiting": spool.oldest.is_some(),
        "dropped": spool.dropped,
        "evicted": spool.evicted,
        "fallbacks": limiter.fallbacks,
        "clients": limiter.keys,
    }))
}
