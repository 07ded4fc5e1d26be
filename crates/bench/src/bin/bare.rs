//! The handler with nothing around it: the limit that everything else is measured against.

use actix_web::{App, HttpServer};
use clap::Parser;
use ipwarden_bench::{HEAD_LIMIT, handler, listen};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

#[expect(clippy::print_stdout, reason = "who starts this reads where it listens")]
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (listener, address) = listen()?;
    let server = HttpServer::new(|| App::new().configure(handler))
        .workers(arguments.workers)
        .client_request_timeout(HEAD_LIMIT)
        .listen(listener)?;
    println!("public {address}");
    Ok(server.run().await?)
}
