//! Redis without persistence, for quotas, the cache of places and change hints.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::watched::{Launch, Private, find_in_path, on_a_free_port};

/// Names a running Redis to use instead of a private one, as `redis://host:port`.
pub const REDIS_VARIABLE: &str = "IPWARDEN_TEST_REDIS";

const MISSING: &str = "no `redis-server` in PATH: run the tests with `bash .ci/test`, which \
    installs it, or `apt-get install redis-server`";

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
    let program = find_in_path("redis-server").context(MISSING)?;
    on_a_free_port(|port| {
        let directory = tempfile::Builder::new().prefix("ipwarden-redis-").tempdir()?.keep();
        let arguments = [
            ["--bind", "127.0.0.1"],
            ["--port", &port.to_string()],
            ["--save", ""],
            ["--appendonly", "no"],
            ["--maxclients", "2000"],
            ["--dir", &directory.to_string_lossy()],
        ];
        let launch = Launch {
            program: program.clone(),
            arguments: arguments.iter().flatten().map(Into::into).collect(),
            port,
            directory,
            signal: "KILL",
            account: None,
        };
        let own = Private::start_new(launch, |pid, port, _| answers_as(port, pid))?;
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

/// Whether the Redis on `port` is the process `pid`, not one that took the port before it.
fn answers_as(port: u16, pid: u32) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"INFO server\r\nQUIT\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.lines().any(|line| line == format!("process_id:{pid}")))
}
