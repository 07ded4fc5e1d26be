//! An unrelated application, wrapped: its requests are limited, blocked and logged by ipwarden.
//!
//! `cargo run -p ipwarden-guard --example protect`, then `curl -i http://127.0.0.1:8000/`. It reads the same
//! settings as `api`, so `ipctl` beside it blocks its clients and shows its log.

use actix_web::{App, HttpServer, web};
use ipwarden_core::config::{load, process_environment};
use ipwarden_core::context::Context;
use ipwarden_engine::clock::Moment;
use ipwarden_guard::{ClientIp, GuardMiddleware};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let context = Context::open(load(None, process_environment())?.config, Moment::now()).await?;

    let guard = GuardMiddleware::new(context.guard.clone()).passes(context.passes.clone());
    let hello = |client: ClientIp| async move { format!("hello, {}\n", client.ip) };
    let server =
        HttpServer::new(move || App::new().route("/", web::get().to(hello)).wrap(guard.clone()));
    server.bind(&address)?.run().await?;

    context.shutdown().await;
    Ok(())
}
