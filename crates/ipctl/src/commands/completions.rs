//! `ipctl completions`.

use clap_complete::env::Shells;

use crate::cli::Completions;
use crate::failure::Failure;
use crate::invocation::Invocation;

pub(super) fn run(given: Invocation, args: Completions) -> Result<(), Failure> {
    let (shells, name) = (Shells::builtins(), args.shell.to_string());
    let shell =
        shells.completer(&name).ok_or_else(|| Failure::Usage(format!("no shell {name}")))?;
    let mut script = Vec::new();
    shell.write_registration("COMPLETE", "ipctl", "ipctl", "ipctl", &mut script)?;
    Ok(given.out.text(&String::from_utf8_lossy(&script))?)
}
