//! A real HAProxy in front of replicas: the load balancer of the tests of restarts.
//!
//! It asks each replica's `/readyz` and sends requests to those that say yes, over connections that it
//! keeps open. It is set up by `deploy/haproxy.cfg`, so that a test of it is a test of that file. What
//! this deliberately lacks is `retry-on`, which would repeat requests that a replica has lost.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::ports::{free_port, listens, on_a_port};
use crate::watched::{Launch, Private, find_in_path, is_program};

const MISSING: &str = "no `haproxy` in PATH or /usr/sbin: run the tests with `bash .ci/test`, which \
    installs it, or `apt-get install haproxy`";

/// What it is told, with addresses that are not those of a test.
const CONFIGURATION: &str = include_str!("../../../deploy/haproxy.cfg");

/// One replica to send requests to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its public listener.
    pub public: SocketAddr,
    /// Its control listener.
    pub control: SocketAddr,
}

/// A running HAProxy; it ends when this is dropped.
#[derive(Debug)]
pub struct Haproxy {
    address: SocketAddr,
    directory: PathBuf,
    _own: Private,
}

/// What it has counted about one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// It gets requests.
    pub up: bool,
    /// Answers that did not come, or not whole.
    pub broken: u64,
    /// Connections that had to be tried again, at this replica or at another.
    pub retried: u64,
}

impl Haproxy {
    /// Starts it in front of these.
    ///
    /// # Errors
    /// If it is not installed, or does not start.
    pub fn start(backends: &[Backend]) -> anyhow::Result<Haproxy> {
        let program = find_in_path("haproxy").or_else(|| Some(PathBuf::from("/usr/sbin/haproxy")));
        let program = program.filter(|program| is_program(program)).context(MISSING)?;
        on_a_port(free_port, |port| {
            let directory = tempfile::Builder::new().prefix("ipwarden-haproxy-").tempdir()?.keep();
            let file = directory.join("haproxy.cfg");
            std::fs::write(&file, configuration(port, &directory, backends))?;
            let own = Private::start_new(
                Launch {
                    program: program.clone(),
                    arguments: ["-db".into(), "-f".into(), file.into()].into(),
                    port,
                    directory: directory.clone(),
                    signal: "KILL",
                    account: None,
                },
                is_ready,
            )?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            Ok(Haproxy { address, directory, _own: own })
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has counted about each replica, in the order of the start.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn counted(&self) -> anyhow::Result<Vec<Counted>> {
        let table = ask(&self.directory, "show stat").context("asking HAProxy")?;
        let mut lines = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let names = lines.next().context("an empty table")?;
        let column = |name| {
            let found = names.iter().position(|column| *column == name);
            found.with_context(|| format!("HAProxy counts no {name}"))
        };
        let [server, status, broken] = [column("svname")?, column("status")?, column("eresp")?];
        let retried = [column("wretr")?, column("wredis")?];
        let mut counted = Vec::new();
        for line in lines.filter(|line| line.get(server).is_some_and(|name| name.starts_with('r')))
        {
            let number = |column: usize| -> anyhow::Result<u64> {
                Ok(line.get(column).context("a short line")?.parse()?)
            };
            counted.push(Counted {
                up: line.get(status).is_some_and(|status| status.starts_with("UP")),
                broken: number(broken)?,
                retried: number(retried[0])? + number(retried[1])?,
            });
        }
        Ok(counted)
    }
}

fn configuration(port: u16, directory: &Path, backends: &[Backend]) -> String {
    let lines = CONFIGURATION.lines().filter(|line| !line.trim_start().starts_with("server "));
    let mut text: String = lines.map(|line| format!("{line}\n")).collect();
    text = text
        .replace("/run/haproxy/admin.sock", &socket(directory).to_string_lossy())
        .replace("bind :80\n", &format!("bind 127.0.0.1:{port}\n"));
    for (number, Backend { public, control }) in backends.iter().enumerate() {
        text.push_str(&format!("    server r{number} {public} port {}\n", control.port()));
    }
    text
}

fn is_ready(pid: u32, port: u16, directory: &Path) -> bool {
    listens(pid, port, directory) && ask(directory, "show info").is_ok()
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("admin.sock")
}

/// What it says to one command; it closes the connection behind the answer.
fn ask(directory: &Path, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket(directory))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
