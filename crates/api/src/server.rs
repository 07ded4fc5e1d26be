//! From a configuration to answered requests, and to an orderly end.

use std::io::{IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::http::ConnectionType;
use actix_web::{App, HttpServer, web};
use anyhow::Context as _;
use ipwarden_core::config::{Config, ConfigError, Loaded, load_with_flags, process_environment};
use ipwarden_core::context::Context;
use ipwarden_engine::clock::Moment;
use ipwarden_guard::GuardMiddleware;

use crate::auth::{WrongKeys, identify};
use crate::connections::{Connections, answering, most_per_worker};
use crate::routes;

/// A request head has to be there within this time, however slowly it is sent.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// How long new requests are still accepted after readiness has failed, so that whoever sends them here
/// has the time to notice. Their answers close their connections.
const NOTICE: Duration = Duration::from_secs(1);
/// How long accepted requests may take to finish once the end has begun, in seconds.
const FINISH_SECONDS: u64 = 3;

/// The ipwarden service.
#[derive(Debug, clap::Parser)]
#[command(name = "api", version, about)]
pub struct Arguments {
    /// The configuration file; without it `ipwarden.toml` in this directory, if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The store: sqlite://path or postgres://user@host/database
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

impl Arguments {
    /// Reads the configuration: default, file, environment, these arguments.
    ///
    /// # Errors
    /// Every key that is wrong, with what would be right.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let flags: Vec<(&str, &str)> =
            self.database_url.iter().map(|url| ("database_url", url.as_str())).collect();
        load_with_flags(self.config.as_deref(), process_environment(), &flags)
    }
}

/// Serves until SIGTERM or SIGINT, then stops in order: readiness goes first, accepted requests
/// finish, the log is shipped.
///
/// # Errors
/// What keeps the service from starting; nothing does later.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let public = bind("public.bind", config.public.bind)?;
    let control = bind("control.bind", config.control.bind)?;
    let listening = Listening { public: public.local_addr()?, control: control.local_addr()? };

    let context = Arc::new(Context::open(config, Moment::now()).await?);
    if context.db.is_sqlite() {
        let jobs = ipwarden_scheduler::Work::of(
            &context.config,
            context.db.clone(),
            context.redis.clone(),
            Moment::now(),
        );
        context.spawn(|stop| async move {
            if let Err(error) = ipwarden_scheduler::run(jobs, stop).await {
                tracing::error!(%error, "the hourly jobs do not run");
            }
        });
    }
    let connections = Connections::default();
    context.spawn(|stop| connections.clone().watch(stop));
    let public = serve_public(&context, public, &connections)?;
    let control = serve_control(&context, control, &connections)?;
    announce(&context, &listening);

    let (handles, ended) = ([public.handle(), control.handle()], [public, control]);
    let stopper = tokio::spawn(stop_on_signal(context.clone(), handles));
    let [public, control] = ended;
    let (public, control) = tokio::join!(public, control);
    stopper.abort();
    context.shutdown().await;
    public.and(control).context("a listener failed")
}

struct Listening {
    public: SocketAddr,
    control: SocketAddr,
}

fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("{key}: cannot listen on {address}; set {key} to a free one"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn serve_public(
    context: &Arc<Context>,
    listener: TcpListener,
    connections: &Connections,
) -> anyhow::Result<Server> {
    // The control listener has one more.
    let (opened, most) = (connections.clone(), most_per_worker(workers() + 1));
    let guard = GuardMiddleware::new(context.guard.clone()).identify(identify(context));
    let context = web::Data::from(context.clone());
    let server = HttpServer::new(move || {
        let stopping = context.clone();
        App::new()
            .app_data(context.clone())
            .configure(routes::public)
            .wrap(guard.clone())
            // No decision: an answer that leaves while the service stops takes its connection along,
            // so that no request is on its way on it when it is closed.
            .wrap_fn(move |request, service| {
                let (answer, stopping) = (answering(request, service), stopping.clone());
                async move {
                    let mut answer = answer.await?;
                    if stopping.is_stopping() {
                        let head = answer.response_mut().head_mut();
                        head.set_connection_type(ConnectionType::Close);
                    }
                    Ok(answer)
                }
            })
    });
    Ok(server
        .workers(workers())
        .max_connections(most)
        .on_connect(move |io, data| opened.opened(io, data))
        .client_request_timeout(HEAD_LIMIT)
        .shutdown_timeout(FINISH_SECONDS)
        .disable_signals()
        .listen(listener)?
        .run())
}

/// Threads of the public listener.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn serve_control(
    context: &Arc<Context>,
    listener: TcpListener,
    connections: &Connections,
) -> anyhow::Result<Server> {
    let (opened, most) = (connections.clone(), most_per_worker(workers() + 1));
    let wrong_keys = web::Data::new(WrongKeys::default());
    let context = web::Data::from(context.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(context.clone())
            .app_data(wrong_keys.clone())
            .configure(routes::control)
            .wrap_fn(answering)
    });
    Ok(server
        .workers(1)
        .max_connections(most)
        .on_connect(move |io, data| opened.opened(io, data))
        .client_request_timeout(HEAD_LIMIT)
        .shutdown_timeout(FINISH_SECONDS)
        .disable_signals()
        .listen(listener)?
        .run())
}

async fn stop_on_signal(context: Arc<Context>, [public, control]: [ServerHandle; 2]) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("no signals can be received: this process can only be killed");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: accepted requests finish, the log is shipped");
    context.begin_shutdown();
    tokio::time::sleep(NOTICE).await;
    public.stop(true).await;
    // Last, so that `/readyz` says until the end that no new requests are wanted.
    control.stop(true).await;
}

/// Tells a person where to look. On stderr, as everything that is not data.
///
/// Whoever started this may have closed it; then nobody is told.
fn announce(context: &Context, listening: &Listening) {
    let _nobody_listens = write_banner(&mut std::io::stderr().lock(), context, listening);
}

fn write_banner(
    out: &mut (impl Write + IsTerminal),
    context: &Context,
    listening: &Listening,
) -> std::io::Result<()> {
    let data_dir = std::path::absolute(&context.config.data_dir)
        .unwrap_or_else(|_| context.config.data_dir.clone());
    let size = if context.db.is_sqlite() { "embedded" } else { "fleet" };
    writeln!(out, "ipwarden {} ({size}) is up", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  public   {:<28} everything here passes the guard", url(listening.public))?;
    writeln!(out, "  control  {:<28} for operators: API, metrics, health", url(listening.control))?;
    writeln!(out, "  data     {}", data_dir.display())?;
    let key_file = data_dir.join(ipwarden_core::keys::ADMIN_KEY_FILE);
    match &context.first_admin_key {
        Some(path) => {
            writeln!(out, "  key      {} (the first admin key, just made)", path.display())?;
            if out.is_terminal()
                && let Ok(key) = std::fs::read_to_string(path)
            {
                writeln!(out, "           {}", key.trim())?;
            }
        }
        None if key_file.exists() => {
            writeln!(out, "  key      {} (the first admin key)", key_file.display())?;
        }
        None => writeln!(out, "  key      made elsewhere; `ipctl key list` shows which there are")?,
    }
    writeln!(out, "  try      curl -i {}/", url(listening.public))
}

/// The address as it can be clicked on: nobody connects to "any address".
fn url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}")
}
