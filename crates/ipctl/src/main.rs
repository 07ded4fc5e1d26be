//! `ipctl`: how operators see and steer ipwarden from a terminal.

mod cli;
mod commands;
mod completion;
mod download;
mod failure;
mod invocation;
mod output;
mod progress;

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::Parser;
use ipwarden_core::config::{Log, LogFormat};
use ipwarden_core::logging;
use ipwarden_engine::clock::Moment;

use crate::cli::Cli;
use crate::invocation::Invocation;

fn main() -> ExitCode {
    // Ends here if a shell asks what to offer.
    clap_complete::CompleteEnv::with_factory(completion::command).complete();
    // Help, versions and usage errors (exit 2) end here.
    let Cli { common, command } = Cli::parse();
    logging::start_command(&Log { level: "warn".to_owned(), format: LogFormat::Text });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime of one thread needs nothing but memory and a file descriptor");
    let command = commands::run(Invocation::new(common, now()), command);
    let outcome = runtime.block_on(progress::at_work(command));
    // A blocking read of standard input must not keep a command that has failed.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The time at which the command was given, or for those that take long, the time now.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(Moment::now().wall)
        .expect("clocks of machines are within the range of dates")
}
