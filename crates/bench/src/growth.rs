//! How the cost of a request moves when there is more of something: workers, replicas, blocked networks, clients.
//!
//! Servers share one core as everywhere, so that what is compared is the CPU time of all of them per request;
//! only the two workers have both cores, which they share with the load. The bare handler runs beside each step.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;

use crate::contestants::{ADMITTING, Bed, command};
use crate::cores;
use crate::cpu;
use crate::document::Findings;
use crate::goals::shown;
use crate::load::{CONNECTIONS, Load, Mix};
use crate::server::{Server, beside};

/// The quota under which a client stays known for the whole run.
const STAYING: &str = "[[quotas]]\nname = \"bench\"\nanonymous = \"1000/1h\"\n";

const SECONDS: u32 = 2;
const LAPS: usize = 3;

/// One step of a table, on its own servers.
struct Step {
    servers: Vec<Server>,
    /// What works for all of them, beside them.
    others: Vec<u32>,
    /// Of how many numbered clients the requests come; else of those of a file.
    clients: Option<usize>,
}

/// What a step came to, over the bare handler beside it.
struct Cost {
    per_second: f64,
    cpu: f64,
    cpu_over_bare: f64,
    /// The part of it that others than the servers have used.
    cpu_of_others: f64,
    resident: f64,
    /// Requests that were decided without Redis, in all laps.
    strays: u64,
}

/// All tables.
pub(crate) fn measure(bed: &Bed, load: &Load, findings: &mut Findings) -> anyhow::Result<()> {
    let directory = bed.directory.join("growth");
    let bare = |workers: usize| {
        let mut command = Command::new(beside("bench-bare")?);
        command.args(["--workers", &workers.to_string()]);
        Ok::<_, anyhow::Error>(Step {
            servers: vec![Server::announced(command, vec![])?],
            others: vec![],
            clients: None,
        })
    };
    let one = bare(1)?;
    let mut text = String::from(
        "| step | requests/s, all together | CPU/request, us | over bare | of it PostgreSQL and Redis | memory, MB |\n\
         |---|---|---|---|---|---|\n",
    );
    let mut row = |what: String, cost: &Cost| {
        let Cost { per_second, cpu, cpu_over_bare, cpu_of_others, resident, strays } = cost;
        let but = match strays {
            0 => String::new(),
            strays => format!(" ({strays} requests decided without Redis)"),
        };
        let line = format!(
            "| {what}{but} | {} | {} | {cpu_over_bare:.3} | {} | {} |",
            shown(*per_second),
            shown(*cpu),
            shown(*cpu_of_others),
            shown(*resident),
        );
        eprintln!("{line}");
        let _ = writeln!(text, "{line}");
    };
    for blocked in [0, 10_000, 100_000, 1_000_000, 10_000_000] {
        let step = guarded(&directory.join(format!("blocked-{blocked}")), 1, blocked, None)?;
        let cost = step.cost(load, &one)?;
        findings.measured.insert(format!("growth blocked {blocked}"), cost.cpu_over_bare);
        row(format!("{} blocked networks", shown(blocked as f64)), &cost);
    }
    for clients in [10_000, 100_000, 1_000_000, 10_000_000] {
        let place = directory.join(format!("clients-{clients}"));
        let mut command = command(&place, STAYING, 100_000, true)?;
        command.args(["--clients", &clients.to_string()]).env("IPWARDEN_NODE", "growth");
        let step = Step {
            servers: vec![Server::announced(command, vec![])?],
            others: vec![],
            clients: Some(clients),
        };
        let beside = Step { clients: Some(clients), ..bare(1)? };
        let cost = step.cost(load, &beside)?;
        findings.measured.insert(format!("growth clients {clients}"), cost.cpu_over_bare);
        row(format!("{} clients within their period", shown(clients as f64)), &cost);
    }
    for workers in [1, 2] {
        let _both = cores::both()?;
        let (step, bare) = (
            guarded(&directory.join(format!("workers-{workers}")), workers, 100_000, None)?,
            bare(workers)?,
        );
        let cost = step.cost(load, &bare)?;
        findings.measured.insert(format!("growth workers {workers}"), cost.cpu_over_bare);
        row(format!("{workers} workers on both cores, with the load"), &cost);
    }
    let cluster = ipwarden_testbed::redis_cluster()?;
    let redis: Vec<u32> = bed.redis.pid().into_iter().collect();
    for (kind, url, pids) in [
        ("one Redis", bed.redis.url().to_owned(), redis),
        ("a cluster of three", cluster.url(), cluster.pids()),
    ] {
        for replicas in [1, 2, 4, 8] {
            let mut step = Step { servers: vec![], others: pids.clone(), clients: None };
            for replica in 0..replicas {
                let place = directory.join(format!("{}-{replicas}-{replica}", pids.len()));
                step.servers.extend(guarded(&place, 1, 100_000, Some(&url))?.servers);
            }
            let cost = step.cost(load, &one)?;
            findings
                .measured
                .insert(format!("growth {} redis {replicas}", pids.len()), cost.cpu_over_bare);
            row(format!("{replicas} replicas on {kind}, spool only"), &cost);
        }
    }
    findings.growth = text;
    Ok(())
}

/// A guarded server whose records stay in the spool.
fn guarded(
    directory: &Path,
    workers: usize,
    blocked: usize,
    redis: Option<&str>,
) -> anyhow::Result<Step> {
    let mut command = command(directory, ADMITTING, blocked, true)?;
    command.args(["--workers", &workers.to_string()]).env("IPWARDEN_NODE", "growth");
    if let Some(url) = redis {
        command.env("REDIS_URL", url);
    }
    let servers = vec![Server::announced(command, vec![])?];
    Ok(Step { servers, others: vec![], clients: None })
}

impl Step {
    /// The medians of a few laps, the bare handler's in between.
    fn cost(&self, load: &Load, bare: &Step) -> anyhow::Result<Cost> {
        self.lap(load)?;
        let (mut laps, mut bares) = (Vec::new(), Vec::new());
        for _ in 0..LAPS {
            bares.push(bare.lap(load)?.1);
            laps.push(self.lap(load)?);
        }
        bares.sort_by(f64::total_cmp);
        laps.sort_by(|one, other| one.1.total_cmp(&other.1));
        let (per_second, cpu, cpu_of_others) = laps[LAPS / 2];
        let (mut resident, mut strays) = (0, 0);
        for server in &self.servers {
            strays += server.state()?.map_or(0, |state| state.fallbacks);
            resident += cpu::resident(server.pid())?;
        }
        Ok(Cost {
            per_second,
            cpu,
            cpu_over_bare: cpu / bares[LAPS / 2],
            cpu_of_others,
            resident: resident as f64 / 1e6,
            strays,
        })
    }

    /// Requests per second of all servers, CPU time of all processes for each, and that of the others.
    fn lap(&self, load: &Load) -> anyhow::Result<(f64, f64, f64)> {
        let own: Vec<u32> = self.servers.iter().map(Server::pid).collect();
        let before = (cpu::of_trees(&own)?, cpu::of_trees(&self.others)?);
        let connections = CONNECTIONS / self.servers.len();
        let outcomes = std::thread::scope(|scope| {
            let loads: Vec<_> = self
                .servers
                .iter()
                .zip((0..).step_by(12_347))
                .map(|(server, from)| {
                    scope.spawn(move || match self.clients {
                        Some(clients) => {
                            load.run_numbered(connections, server.public, clients, SECONDS, from)
                        }
                        None => load.run_on(connections, server.public, Mix::Plain, SECONDS, from),
                    })
                })
                .collect();
            loads
                .into_iter()
                .map(|load| load.join().expect("a load does not panic"))
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        let after = (cpu::of_trees(&own)?, cpu::of_trees(&self.others)?);
        let requests: u64 = outcomes.iter().map(|outcome| outcome.requests).sum();
        ensure!(
            outcomes.iter().all(|outcome| outcome.failed + outcome.refused == 0),
            "requests failed"
        );
        let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / requests.max(1) as f64;
        let of_others = each(after.1 - before.1);
        let per_second = outcomes.iter().map(crate::load::Outcome::per_second).sum();
        Ok((per_second, each(after.0 - before.0) + of_others, of_others))
    }
}
