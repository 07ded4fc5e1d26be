//! A server under load: its process, where it listens, and what else works for it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use ipwarden_engine::clock::Moment;
use serde::Deserialize;

/// Ends with this program's orderly end.
pub(crate) struct Server {
    child: Child,
    /// Where it answers.
    pub(crate) public: SocketAddr,
    /// Where it says how it does, if it does.
    control: Option<SocketAddr>,
    /// Servers of others that work for it: PostgreSQL, Redis.
    pub(crate) others: Vec<u32>,
}

/// What a guarded server says of itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct State {
    pub(crate) allowed: u64,
    pub(crate) blocked: u64,
    pub(crate) throttled: u64,
    /// `None` where nothing is shipped.
    pub(crate) shipped: Option<u64>,
    pub(crate) dropped: u64,
    pub(crate) fallbacks: u64,
}

impl State {
    pub(crate) fn requests(&self) -> u64 {
        self.allowed + self.blocked + self.throttled
    }
}

impl Server {
    /// Starts a program that says on stdout where it listens.
    pub(crate) fn announced(mut command: Command, others: Vec<u32>) -> anyhow::Result<Server> {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
        let (mut public, mut control) = (None, None);
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).lines() {
                let line = line?;
                match line.split_once(' ') {
                    Some(("control", address)) => control = Some(address.parse()?),
                    Some(("public", address)) => {
                        public = Some(address.parse()?);
                        break;
                    }
                    _ => {}
                }
            }
        }
        let Some(public) = public else {
            bail!("{command:?} ended at its start: {}", child.wait()?);
        };
        Ok(Server { child, public, control, others })
    }

    /// Starts a program that was told where to listen, and waits until it answers.
    pub(crate) fn at(
        mut command: Command,
        public: SocketAddr,
        others: Vec<u32>,
    ) -> anyhow::Result<Server> {
        let child = command.stdin(Stdio::null()).spawn()?;
        let mut server = Server { child, public, control: None, others };
        within(Duration::from_secs(30), "it listens", || {
            if let Some(status) = server.child.try_wait()? {
                bail!("{command:?} ended at its start: {status}");
            }
            Ok(TcpStream::connect(public).is_ok().then_some(()))
        })?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything whose CPU time counts.
    pub(crate) fn pids(&self) -> Vec<u32> {
        std::iter::once(self.pid()).chain(self.others.iter().copied()).collect()
    }

    /// How it does, if it is one that says so.
    pub(crate) fn state(&self) -> anyhow::Result<Option<State>> {
        let Some(control) = self.control else { return Ok(None) };
        Ok(Some(serde_json::from_str(&get(control, "/")?)?))
    }

    /// Waits until all that it has recorded is in its store.
    pub(crate) fn shipped(&self) -> anyhow::Result<()> {
        within(Duration::from_secs(120), "the log is shipped", || {
            let state = self.state()?;
            let done = state.is_none_or(|state| {
                state.shipped.is_none_or(|shipped| shipped >= state.requests())
            });
            Ok(done.then_some(()))
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // Politely first, since masters end their workers; what ended by itself needs neither.
        let _ = Command::new("kill").args(["-TERM", &pid]).stderr(Stdio::null()).status();
        let ended =
            within(Duration::from_secs(5), "it ends", || Ok(self.child.try_wait()?.map(|_| ())));
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The body of an answer.
pub(crate) fn get(from: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(from)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) =
        answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    Ok(body.to_owned())
}

/// Asks again and again, ten times a second.
pub(crate) fn within<T>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let began = Moment::now().steady;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if u128::from(Moment::now().steady - began) > limit.as_micros() {
            bail!("not within {limit:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An address that nobody listens on yet.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A program beside this one.
pub(crate) fn beside(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.parent().unwrap_or(Path::new(".")).join(name);
    if !found.exists() {
        bail!("{} is missing: `just bench` builds it", found.display());
    }
    Ok(found)
}
