//! A cluster of Redis: three masters without replicas, which share the slots.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail};

use super::{ask, directory, has_line, start, until};
use crate::ports::{free_port, on_a_port};
use crate::watched::{Private, find_in_path};

/// The nodes speak to each other on a port this much higher.
const BUS: u16 = 10_000;

/// A cluster to test against. Clones are the same cluster.
#[derive(Clone, Debug)]
pub struct RedisCluster {
    nodes: Arc<Vec<(u16, Private)>>,
}

/// A cluster of the test's own, empty; ends when its last clone is dropped.
pub fn redis_cluster() -> anyhow::Result<RedisCluster> {
    let nodes = (0..3)
        .map(|_| {
            on_a_port(free_port_with_bus, |port| {
                Ok((port, start(port, directory()?, &["--cluster-enabled", "yes"])?))
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    join(&nodes)?;
    Ok(RedisCluster { nodes: Arc::new(nodes) })
}

impl RedisCluster {
    /// `redis-cluster://127.0.0.1:<port>,..` with all three nodes.
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self.ports().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis-cluster://{}", nodes.join(","))
    }

    /// Kills the first node, and with it a third of the keys.
    pub fn stop_one(&self) -> anyhow::Result<()> {
        self.nodes[0].1.stop()
    }

    /// Starts the first node again: it is part of the cluster as before, and empty.
    pub fn start_one(&self) -> anyhow::Result<()> {
        self.nodes[0].1.start()?;
        await_complete(&self.nodes)
    }

    /// The processes of the three nodes.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|(_, node)| node.pid()).collect()
    }

    /// The ports of the three nodes.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.nodes.iter().map(|(port, _)| *port)
    }
}

/// Has the nodes share the slots, and waits until they agree.
fn join(nodes: &[(u16, Private)]) -> anyhow::Result<()> {
    let program = find_in_path("redis-cli").context("no `redis-cli` in PATH, beside the server")?;
    let mut command = Command::new(program);
    command.args(["--cluster", "create"]);
    command.args(nodes.iter().map(|(port, _)| format!("127.0.0.1:{port}")));
    command.arg("--cluster-yes").stdin(Stdio::null()).stdout(Stdio::null());
    // It waits for the nodes without end, so we do not wait for it that long.
    let mut joining = command.spawn().context("starting redis-cli")?;
    let joined = until("the nodes have joined", || !matches!(joining.try_wait(), Ok(None)));
    if joined.is_err() {
        joining.kill()?;
    }
    let status = joining.wait()?;
    joined?;
    if !status.success() {
        bail!("redis-cli could not make a cluster: {status}");
    }
    await_complete(nodes)
}

/// Waits until every node finds the cluster complete.
fn await_complete(nodes: &[(u16, Private)]) -> anyhow::Result<()> {
    for (port, _) in nodes {
        until("a node finds the cluster complete", || {
            ask(*port, "CLUSTER INFO").is_ok_and(|answer| {
                has_line(&answer, "cluster_state:ok")
                    && has_line(&answer, "cluster_known_nodes:3")
                    && has_line(&answer, "cluster_size:3")
            })
        })?;
    }
    Ok(())
}

/// A free port whose bus is free as well.
fn free_port_with_bus() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let port = free_port()?;
        let Some(bus) = port.checked_add(BUS) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, bus)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free together with the one {BUS} higher")
}
