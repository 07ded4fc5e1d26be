//! `ipctl completions`.

use clap::CommandFactory;

use crate::cli::{Cli, Completions};
use crate::failure::Failure;
use crate::invocation::Invocation;

pub(super) fn run(given: Invocation, args: Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ipctl", &mut script);
    Ok(given.out.text(&String::from_utf8_lossy(&script))?)
}
