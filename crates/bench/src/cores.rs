//! Which core does what: all servers share one, the load has the other.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The core of every server, and of this program, which starts them and hands it down.
const SERVERS: &str = "0";
/// The core of the load.
const LOAD: &str = "1";

/// Confines this process, and whatever it starts from now on, to the servers' core.
///
/// # Errors
/// When the machine has no two cores, or no `taskset`.
pub(crate) fn confine() -> anyhow::Result<()> {
    set(SERVERS)
}

fn set(cores: &str) -> anyhow::Result<()> {
    let own = std::process::id().to_string();
    let mut command = Command::new("taskset");
    let output = command.args(["--all-tasks", "--cpu-list", "--pid", cores, &own]).output();
    let output = output.context("taskset is needed: `apt-get install util-linux`")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "this process cannot be confined to cores {cores}: {said}");
    Ok(())
}

/// Gives this process, and whatever it starts meanwhile, both cores, until what is returned is dropped.
///
/// # Errors
/// As [`confine`].
pub(crate) fn both() -> anyhow::Result<Elsewhere> {
    set(&format!("{SERVERS},{LOAD}"))?;
    Ok(Elsewhere)
}

/// The same with the core of the load alone, which nobody loads: servers that were started before keep
/// the other one to themselves.
///
/// # Errors
/// As [`confine`].
pub(crate) fn other() -> anyhow::Result<Elsewhere> {
    set(LOAD)?;
    Ok(Elsewhere)
}

/// Confines this process again when it is dropped.
pub(crate) struct Elsewhere;

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Err(error) = confine() {
            eprintln!("{error:#}");
        }
    }
}

/// A program on the core of the load.
pub(crate) fn loading(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", LOAD]).arg(program);
    command
}
