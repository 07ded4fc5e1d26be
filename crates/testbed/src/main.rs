//! `testbed COMMAND [ARGUMENT..]`: runs a command with a private PostgreSQL and Redis beside it.
//!
//! The command finds them by the variables that the library reads. Both end with this program;
//! the exit code is the command's.

use std::process::{Command, ExitCode};

use anyhow::Context;
use ipwarden_testbed::{POSTGRES_VARIABLE, REDIS_VARIABLE};

fn main() -> anyhow::Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().context("usage: testbed COMMAND [ARGUMENT..]")?;
    let postgres = ipwarden_testbed::postgres_private()?;
    let redis = ipwarden_testbed::redis_private()?;
    let postgres_url = postgres.url("");
    let postgres_url = postgres_url.trim_end_matches('/');
    eprintln!("PostgreSQL at {postgres_url}, Redis at {}", redis.url());
    let status = Command::new(&program)
        .args(words)
        .env(POSTGRES_VARIABLE, postgres_url)
        .env(REDIS_VARIABLE, redis.url())
        .status()
        .with_context(|| format!("starting {}", program.display()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
