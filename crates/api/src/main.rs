//! The service: `api` answers browsers, proxies and operators.

use std::process::ExitCode;

use clap::Parser;
use ipwarden_api::{huge_pages, server};
use ipwarden_core::config::EXIT_CODE;
use ipwarden_core::logging;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before there are threads, which would each take some.
    huge_pages::avoid();
    serve()
}

#[tokio::main]
async fn serve() -> ExitCode {
    let arguments = server::Arguments::parse();
    let loaded = match arguments.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("api: {error}");
            return ExitCode::from(EXIT_CODE);
        }
    };
    logging::start(&loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match server::run(loaded.config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("api: {error:#}");
            ExitCode::FAILURE
        }
    }
}
