//! Redis without persistence, for quotas, the cache of places and change hints.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use crate::ports::{free_port, on_a_port};
use crate::watched::{Launch, Private, find_in_path};

mod cluster;
mod sentinel;

pub use cluster::{RedisCluster, redis_cluster};
pub use sentinel::{RedisSentinel, redis_sentinel};

/// Names a running Redis to use instead of a private one, as `redis://host:port`.
pub const REDIS_VARIABLE: &str = "IPWARDEN_TEST_REDIS";

const MISSING: &str = "no `redis-server` in PATH: run the tests with `bash .ci/test`, which \
    installs it, or `apt-get install redis-server`";

/// The niceness of a server, if whoever runs the tests may give it.
const PRECEDENCE: &str = "-10";

/// A Redis to test against. Clones are the same server.
#[derive(Clone, Debug)]
pub struct RedisServer {
    url: String,
    /// `None` for a server that the environment named.
    own: Option<Arc<Private>>,
}

/// The Redis that all tests share. It is not empty: use key prefixes of your own
/// ([`unique_name`](crate::unique_name)) and never flush it.
pub fn redis() -> anyhow::Result<RedisServer> {
    static SHARED: OnceLock<Result<RedisServer, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var(REDIS_VARIABLE) {
        Ok(url) if !url.is_empty() => {
            Ok(RedisServer { url: url.trim_end_matches('/').to_owned(), own: None })
        }
        _ => redis_private().map_err(|error| format!("{error:#}")),
    });
    shared.clone().map_err(|error| anyhow!(error))
}

/// A Redis of the test's own, empty, which it may freeze, stop and start again; ends when its last
/// clone is dropped.
pub fn redis_private() -> anyhow::Result<RedisServer> {
    on_a_port(free_port, |port| {
        let own = start(port, directory()?, &[])?;
        Ok(RedisServer { url: format!("redis://127.0.0.1:{port}"), own: Some(Arc::new(own)) })
    })
}

impl RedisServer {
    /// `redis://127.0.0.1:<port>`, database 0.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's process id, if it is ours and running.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref()?.pid()
    }

    /// What a private server says to one command, written as on a terminal.
    pub fn ask(&self, command: &str) -> anyhow::Result<String> {
        Ok(ask(self.private()?.port(), command)?)
    }

    /// Kills a private server; its port refuses connections afterwards.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.private()?.stop()
    }

    /// Starts a stopped server again on its old port; it has forgotten everything.
    pub fn start(&self) -> anyhow::Result<()> {
        self.private()?.start()
    }

    /// Freezes a private server: connections stay open and nothing is answered.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.private()?.freeze()
    }

    /// Ends [`RedisServer::freeze`].
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.private()?.thaw()
    }

    fn private(&self) -> anyhow::Result<&Private> {
        self.own.as_deref().context("the environment's server is not ours: use redis_private()")
    }
}

/// The directory of one server, which goes with it.
fn directory() -> anyhow::Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix("ipwarden-redis-").tempdir()?.keep())
}

/// Starts an empty server that keeps nothing, with these arguments besides.
fn start(port: u16, directory: PathBuf, more: &[&str]) -> anyhow::Result<Private> {
    let text = [port.to_string(), directory.to_string_lossy().into_owned()];
    let usual = ["--bind", "127.0.0.1", "--port", &text[0], "--dir", &text[1], "--save", ""];
    let rest = ["--appendonly", "no", "--maxclients", "2000"];
    let arguments: Vec<&str> = [&usual[..], &rest, more].concat();
    launch(port, directory, &arguments)
}

/// Starts `redis-server` with exactly these arguments.
///
/// It goes before all other processes where the system lets it: in a fleet it has a machine of its
/// own, here it shares two cores with the replicas that wait for it.
fn launch(port: u16, directory: PathBuf, arguments: &[&str]) -> anyhow::Result<Private> {
    let server = find_in_path("redis-server").context(MISSING)?;
    let first = ["-n".into(), PRECEDENCE.into(), server.into_os_string()];
    let launch = Launch {
        program: find_in_path("nice").context("no `nice` in PATH")?,
        arguments: first.into_iter().chain(arguments.iter().map(Into::into)).collect(),
        port,
        directory,
        signal: "KILL",
        account: None,
    };
    Private::start_new(launch, |pid, port, _| answers_as(port, pid))
}

/// Whether the Redis on `port` is the process `pid`, not one that took the port before it.
fn answers_as(port: u16, pid: u32) -> bool {
    ask(port, "INFO server").is_ok_and(|answer| has_line(&answer, &format!("process_id:{pid}")))
}

/// What the Redis on `port` says to one command, line by line.
fn ask(port: u16, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut answer = String::new();
    read_answer(&mut BufReader::new(stream), &mut answer)?;
    Ok(answer)
}

/// One answer of the Redis protocol, version 2, with all that is in it. Not by reading to the end:
/// a sentinel knows no `QUIT`.
fn read_answer(from: &mut impl BufRead, into: &mut String) -> std::io::Result<()> {
    let mut first = String::new();
    from.read_line(&mut first)?;
    let (kind, rest) = first.trim_end().split_at_checked(1).unwrap_or_default();
    match (kind, rest.parse::<u64>()) {
        ("$", Ok(length)) => {
            from.take(length + 2).read_to_string(into)?;
        }
        ("*", Ok(parts)) => (0..parts).try_for_each(|_| read_answer(from, into))?,
        _ => into.push_str(&format!("{rest}\n")),
    }
    Ok(())
}

fn has_line(answer: &str, wanted: &str) -> bool {
    answer.lines().any(|line| line == wanted)
}

/// Waits until it is so, half a minute at most.
fn until(what: &str, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    for _ in 0..600 {
        if is_so() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("half a minute has passed, and still not: {what}")
}
