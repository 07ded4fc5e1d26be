//! From a configuration to answered requests, and to an orderly end.

mod banner;
mod grpc;

use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServerHandle, Service, ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::{App, Error, HttpServer, web};
use anyhow::Context as _;
use futures_util::future::{OptionFuture, join_all};
use ipwarden_core::changes::COPY;
use ipwarden_core::config::{Config, ConfigError, Loaded, load_with_flags, process_environment};
use ipwarden_core::context::Context;
use ipwarden_core::sessions::Audience;
use ipwarden_engine::clock::Moment;
use ipwarden_guard::GuardMiddleware;

use self::banner::{Listening, announce};
use self::grpc::Grpc;
use crate::auth::door::Door;
use crate::auth::{WrongKeys, identify};
use crate::connections::{Connections, PATIENCE, answering, most_per_worker};
use crate::huge_pages;
use crate::routes;
use crate::routes::gate::forward_auth::{Asker, Headers};

/// A request head has to be there within this time, however slowly it is sent.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection to the gate is kept without a request: longer than proxies keep theirs (60 s in
/// nginx, 90 s in Traefik), so that none sends a question on one that is just being closed.
const KEPT_FOR_PROXIES: Duration = Duration::from_secs(120);
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
    let gate = config.gate.bind.map(|address| bind("gate.bind", address)).transpose()?;
    let grpc = config.gate.grpc_bind.map(|address| bind("gate.grpc_bind", address)).transpose()?;
    let control = bind("control.bind", config.control.bind)?;
    let listening = Listening {
        public: public.local_addr()?,
        gate: gate.as_ref().map(TcpListener::local_addr).transpose()?,
        grpc: grpc.as_ref().map(TcpListener::local_addr).transpose()?,
        control: control.local_addr()?,
    };

    huge_pages::allow_for(&config.data_dir.join(COPY));
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
    context.spawn(huge_pages::watch);
    let connections = Connections::default();
    context.spawn(|stop| connections.clone().watch(stop));
    let public = serve_public(&context, public, &connections)?;
    let gate = gate.map(|gate| serve_gate(&context, gate, &connections)).transpose()?;
    let grpc = grpc.map(|grpc| serve_grpc(&context, grpc, &connections)).transpose()?;
    let control = serve_control(&context, control, &connections)?;
    announce(&context, &listening);

    let guarded = [Some(&public), gate.as_ref()].into_iter().flatten().map(Server::handle);
    let stopper = stop_on_signal(context.clone(), guarded.collect(), grpc, control.handle());
    let stopper = tokio::spawn(stopper);
    let gate = async {
        match gate {
            Some(gate) => gate.await,
            None => Ok(()),
        }
    };
    let (public, gate, control) = tokio::join!(public, gate, control);
    stopper.abort();
    context.shutdown().await;
    public.and(gate).and(control).context("a listener failed")
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
    let (opened, most) = (connections.patient(PATIENCE), most_per_worker(all_workers(context)));
    let door = web::Data::new(Door::of(context, Audience::Public));
    let guard = GuardMiddleware::new(context.guard.clone())
        .identify(identify(context, &door))
        .passes(context.passes.clone());
    let context = web::Data::from(context.clone());
    let server = HttpServer::new(move || {
        let stopping = context.clone();
        App::new()
            .app_data(context.clone())
            .app_data(door.clone())
            .configure(routes::public)
            .wrap(guard.clone())
            .wrap_fn(move |request, service| last_answering(request, service, &stopping))
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

fn serve_gate(
    context: &Arc<Context>,
    listener: TcpListener,
    connections: &Connections,
) -> anyhow::Result<Server> {
    let patience = KEPT_FOR_PROXIES + PATIENCE;
    let (opened, most) = (connections.patient(patience), most_per_worker(all_workers(context)));
    let headers = Headers::of(&context.config)?;
    let wrong_keys = web::Data::new(WrongKeys::default());
    let context = web::Data::from(context.clone());
    let server = HttpServer::new(move || {
        let stopping = context.clone();
        let asker = Asker::new(&context, headers.clone());
        App::new()
            .app_data(context.clone())
            .app_data(web::Data::new(asker))
            .app_data(wrong_keys.clone())
            .configure(routes::gate)
            .wrap_fn(move |request, service| last_answering(request, service, &stopping))
    });
    Ok(server
        .workers(workers())
        .max_connections(most)
        .on_connect(move |io, data| opened.opened(io, data))
        .client_request_timeout(HEAD_LIMIT)
        .keep_alive(KEPT_FOR_PROXIES)
        .shutdown_timeout(FINISH_SECONDS)
        .disable_signals()
        .listen(listener)?
        .run())
}

fn serve_grpc(
    context: &Arc<Context>,
    listener: TcpListener,
    connections: &Connections,
) -> anyhow::Result<Grpc> {
    let patient = connections.patient(KEPT_FOR_PROXIES + PATIENCE);
    Grpc::serve(context, listener, (patient, most_per_worker(all_workers(context))))
}

/// Threads of the public listener, of the gate, and of the gate over gRPC.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Among how many the connections are divided: the threads of the public listener and of the gate; the
/// control listener has one thread, and one part is for all of gRPC.
fn all_workers(context: &Context) -> usize {
    let gate = &context.config.gate;
    (1 + usize::from(gate.bind.is_some())) * workers() + 1 + usize::from(gate.grpc_bind.is_some())
}

/// Answers a request. An answer that leaves while the service stops takes its connection along, so that
/// no request is on its way on it when it is closed.
fn last_answering<S, B>(
    request: ServiceRequest,
    service: &S,
    stopping: &web::Data<Context>,
) -> impl Future<Output = Result<ServiceResponse<B>, Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    let (answer, stopping) = (answering(request, service), stopping.clone());
    async move {
        let mut answer = answer.await?;
        if stopping.is_stopping() {
            answer.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
        Ok(answer)
    }
}

fn serve_control(
    context: &Arc<Context>,
    listener: TcpListener,
    connections: &Connections,
) -> anyhow::Result<Server> {
    let (opened, most) = (connections.patient(PATIENCE), most_per_worker(all_workers(context)));
    let wrong_keys = web::Data::new(WrongKeys::default());
    let door = web::Data::new(Door::of(context, Audience::Control));
    let listeners = web::Data::new(routes::Listeners::default());
    let counters = web::Data::new(routes::Counters::default());
    let context = web::Data::from(context.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(context.clone())
            .app_data(wrong_keys.clone())
            .app_data(door.clone())
            .app_data(listeners.clone())
            .app_data(counters.clone())
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

/// `guarded` and `grpc` are the listeners whose requests are decided about.
async fn stop_on_signal(
    context: Arc<Context>,
    guarded: Vec<ServerHandle>,
    grpc: Option<Grpc>,
    control: ServerHandle,
) {
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
    let guarded = join_all(guarded.iter().map(|listener| listener.stop(true)));
    tokio::join!(guarded, OptionFuture::from(grpc.map(Grpc::stop)));
    // Last, so that `/readyz` says until the end that no new requests are wanted.
    control.stop(true).await;
}
