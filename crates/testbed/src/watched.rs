//! A server that ends with this process, however this process ends.
//!
//! It is started by a small shell script that holds the reading end of a pipe. The writing end is
//! ours alone: when it closes, because we dropped it or because the kernel closed it for a killed
//! process, the script ends the server and removes its directory. The word `keep` on the pipe ends
//! the server alone, so that it can be started again on the same files.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};

/// `$1` is the signal that ends the server, `$2` its directory; the rest is its command line.
///
/// A server that ended by itself leaves `ended`, so that its number, which may be another
/// process's by then, gets no signal.
const SCRIPT: &str = r#"
signal=$1 directory=$2
shift 2
exec 3<&0
"$@" </dev/null >>"$directory/log" 2>&1 3<&- &
server=$!
(
    read -r word <&3
    if [ ! -e "$directory/ended" ]; then
        kill -s "$signal" "$server"
        kill -s CONT "$server"
        tries=0
        while [ ! -e "$directory/ended" ] && [ "$tries" -lt 100 ]; do
            sleep 0.1
            tries=$((tries + 1))
        done
    fi
    [ "$word" = keep ] || rm -rf -- "$directory"
) >/dev/null &
echo "$server"
wait "$server"
: >"$directory/ended"
"#;

/// Times a starting server is asked whether it is ready, `READY_PAUSE` apart: a minute in all.
const READY_TRIES: u32 = 3_000;
const READY_PAUSE: Duration = Duration::from_millis(20);

/// Who a server runs as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// How to start a server.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) port: u16,
    /// Where it keeps its files; removed with it.
    pub(crate) directory: PathBuf,
    /// The name of the signal that ends it at once, such as `KILL`.
    pub(crate) signal: &'static str,
    /// `None`: as whoever runs the tests.
    pub(crate) account: Option<Account>,
}

/// A running server.
#[derive(Debug)]
struct Watched {
    pid: u32,
    directory: PathBuf,
    script: Mutex<Child>,
    /// Held open for as long as the server shall run.
    leash: Option<ChildStdin>,
}

impl Watched {
    /// Starts it and waits until `is_ready` says so; an error holds the end of the server's log.
    fn start(launch: &Launch, is_ready: impl Fn(u32) -> bool) -> anyhow::Result<Watched> {
        let watched = Watched::spawn(launch)?;
        for _ in 0..READY_TRIES {
            if watched.has_ended() {
                bail!("{} ended at its start:\n{}", launch.program.display(), watched.log());
            }
            if is_ready(watched.pid) {
                return Ok(watched);
            }
            std::thread::sleep(READY_PAUSE);
        }
        bail!("{} was not ready after a minute:\n{}", launch.program.display(), watched.log())
    }

    /// Ends the server and keeps its directory.
    fn stop(mut self) -> anyhow::Result<()> {
        if let Some(leash) = &mut self.leash {
            leash.write_all(b"keep\n").context("the script that watches the server is gone")?;
        }
        Ok(())
    }

    fn spawn(launch: &Launch) -> anyhow::Result<Watched> {
        // Left by an earlier run on the same directory; absent at the first.
        let _ = std::fs::remove_file(launch.directory.join("ended"));
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "sh", launch.signal])
            .arg(&launch.directory)
            .arg(&launch.program)
            .args(&launch.arguments)
            .current_dir(&launch.directory)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Out of reach of the terminal's Ctrl-C, which would kill the script before its work.
            .process_group(0);
        if let Some(account) = launch.account {
            command.uid(account.user).gid(account.group);
        }
        let mut script = command.spawn().context("starting /bin/sh")?;
        let leash = script.stdin.take();
        let mut first_line = String::new();
        if let Some(output) = script.stdout.take() {
            BufReader::new(output).read_line(&mut first_line).context("reading the pid")?;
        }
        let pid = first_line.trim().parse().context("the script printed no pid")?;
        Ok(Watched { pid, directory: launch.directory.clone(), script: Mutex::new(script), leash })
    }

    fn has_ended(&self) -> bool {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(script.try_wait(), Ok(None))
    }

    /// The last lines that the server wrote.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.leash.take());
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        // The script ends right after its server. An error here leaves nothing to be done.
        let _ = script.wait();
    }
}

fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("/bin/sh")
        .args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()])
        .status()?;
    if !status.success() {
        bail!("could not send SIG{name} to {pid}");
    }
    Ok(())
}

/// The processes that a server has started itself, as PostgreSQL does for each connection.
fn children(parent: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").context("looking for the server's processes")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended in between. The name, in brackets, may hold anything.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if after_name.split_whitespace().nth(1) == Some(&parent.to_string()) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// A server that its test may stop, freeze and start again.
#[derive(Debug)]
pub(crate) struct Private {
    launch: Launch,
    is_ready: ReadyCheck,
    running: Mutex<Option<Watched>>,
}

/// Whether the process with this id listens on this port, with its files in this directory.
type ReadyCheck = fn(u32, u16, &Path) -> bool;

impl Private {
    pub(crate) fn start_new(launch: Launch, is_ready: ReadyCheck) -> anyhow::Result<Private> {
        let private = Private { launch, is_ready, running: Mutex::new(None) };
        private.start()?;
        Ok(private)
    }

    pub(crate) fn start(&self) -> anyhow::Result<()> {
        let mut running = self.running();
        if running.as_ref().is_some_and(Watched::has_ended) {
            // By itself, as servers do when their disk is full. Its files stay.
            running.take().map_or(Ok(()), Watched::stop)?;
        }
        if running.is_none() {
            let Launch { port, directory, .. } = &self.launch;
            let is_ready = |pid| (self.is_ready)(pid, *port, directory);
            *running = Some(Watched::start(&self.launch, is_ready)?);
        }
        Ok(())
    }

    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.running().take().map_or(Ok(()), Watched::stop)
    }

    pub(crate) fn freeze(&self) -> anyhow::Result<()> {
        let pid = self.pid().context("the server is stopped")?;
        signal(pid, "STOP")?;
        // After their parent, which makes no more of them.
        children(pid)?.into_iter().try_for_each(|child| signal(child, "STOP"))
    }

    pub(crate) fn thaw(&self) -> anyhow::Result<()> {
        let pid = self.pid().context("the server is stopped")?;
        children(pid)?.into_iter().try_for_each(|child| signal(child, "CONT"))?;
        signal(pid, "CONT")
    }

    pub(crate) fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.launch.directory.join("log"))?)
    }

    pub(crate) fn port(&self) -> u16 {
        self.launch.port
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(|watched| watched.pid)
    }

    fn running(&self) -> MutexGuard<'_, Option<Watched>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if self.running().take().is_none() {
            // Stopped by its test, so the script kept the directory.
            let _ = std::fs::remove_dir_all(&self.launch.directory);
        }
    }
}

/// Looks for `program` in the directories of `PATH`.
pub(crate) fn find_in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_program(file))
}

pub(crate) fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
