//! A Redis with one replica, and a sentinel that promotes it when its master is gone.

use std::sync::Arc;

use anyhow::Context;

use super::{ask, directory, has_line, launch, start, until};
use crate::ports::{free_port, on_a_port};
use crate::watched::Private;

/// The name that the sentinel knows the master by.
const MASTER: &str = "ipwarden";

/// Master, replica and sentinel to test against. Clones are the same.
#[derive(Clone, Debug)]
pub struct RedisSentinel {
    servers: Arc<Servers>,
}

#[derive(Debug)]
struct Servers {
    /// Dropped first, so that nothing is promoted when all of them end.
    _sentinel: Private,
    sentinel_port: u16,
    master: Private,
    master_port: u16,
    _replica: Private,
    replica_port: u16,
}

/// A master, its replica and a sentinel of the test's own, empty; they end when the last clone is
/// dropped.
pub fn redis_sentinel() -> anyhow::Result<RedisSentinel> {
    // By way of a file: otherwise the first changes are held back until the replica has said a second
    // later that it is complete.
    let at_once = ["--repl-diskless-sync", "no"];
    let (master_port, master) =
        on_a_port(free_port, |port| Ok((port, start(port, directory()?, &at_once)?)))?;
    let (replica_port, replica) = on_a_port(free_port, |port| {
        let of = ["--replicaof", "127.0.0.1", &master_port.to_string()];
        Ok((port, start(port, directory()?, &[&at_once[..], &of].concat())?))
    })?;
    until("the replica is a copy", || {
        says(replica_port, "INFO replication", "master_link_status:up")
    })?;
    let (sentinel_port, sentinel) =
        on_a_port(free_port, |port| Ok((port, start_sentinel(port, master_port)?)))?;
    // It may be promoted only when the sentinel has seen that it is a copy.
    until("the sentinel knows the replica", || {
        let replicas = format!("SENTINEL REPLICAS {MASTER}");
        ask(sentinel_port, &replicas).is_ok_and(|answer| {
            has_line(&answer, &replica_port.to_string())
                && has_line(&answer, "slave")
                && has_line(&answer, "ok")
        })
    })?;
    let servers = Servers {
        _sentinel: sentinel,
        sentinel_port,
        master,
        master_port,
        _replica: replica,
        replica_port,
    };
    Ok(RedisSentinel { servers: Arc::new(servers) })
}

fn start_sentinel(port: u16, master_port: u16) -> anyhow::Result<Private> {
    let directory = directory()?;
    let file = directory.join("sentinel.conf");
    // A second without an answer, on a machine that may be busy, and then quickly.
    let config = format!(
        "port {port}\nbind 127.0.0.1\ndir {directory}\n\
         sentinel monitor {MASTER} 127.0.0.1 {master_port} 1\n\
         sentinel down-after-milliseconds {MASTER} 1000\n\
         sentinel failover-timeout {MASTER} 6000\n",
        directory = directory.display(),
    );
    std::fs::write(&file, config)?;
    launch(port, directory, &[&file.to_string_lossy(), "--sentinel"])
}

impl RedisSentinel {
    /// `redis-sentinel://127.0.0.1:<port>/<master>`.
    pub fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}/{MASTER}", self.servers.sentinel_port)
    }

    /// The port of the sentinel.
    pub fn sentinel_port(&self) -> u16 {
        self.servers.sentinel_port
    }

    /// The name that the sentinel knows the master by.
    pub fn master_name(&self) -> &'static str {
        MASTER
    }

    /// The port of the master there was at the start.
    pub fn master_port(&self) -> u16 {
        self.servers.master_port
    }

    /// The port of the replica there was at the start.
    pub fn replica_port(&self) -> u16 {
        self.servers.replica_port
    }

    /// Kills the master there was at the start; its port refuses connections afterwards.
    pub fn kill_master(&self) -> anyhow::Result<()> {
        self.servers.master.stop()
    }

    /// Waits until the sentinel has made the replica the master; half a minute at most.
    pub fn await_promotion(&self) -> anyhow::Result<()> {
        let Servers { sentinel_port, replica_port, .. } = *self.servers;
        let named = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {MASTER}");
        until("the replica is promoted", || {
            says(sentinel_port, &named, &replica_port.to_string())
                && says(replica_port, "INFO replication", "role:master")
        })
        .context("the sentinel made nobody the master")
    }
}

/// Whether the answer of the Redis on `port` to `command` has this line.
fn says(port: u16, command: &str, line: &str) -> bool {
    ask(port, command).is_ok_and(|answer| has_line(&answer, line))
}
