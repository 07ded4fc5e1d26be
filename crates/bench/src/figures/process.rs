//! The service as a process: memory, and the start with a long blocklist.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use ipwarden_core::changes::COPY;
use ipwarden_core::db::Db;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;

use crate::contestants::Bed;
use crate::cpu;
use crate::document::Findings;
use crate::rounds::Spread;
use crate::server::{beside, free_address, get, within};

const MILLION: usize = 1_000_000;
/// How every answer begins.
const STATUS: &[u8] = b"HTTP/1.1 ";

pub(super) async fn measure(bed: &Bed, findings: &mut Findings) -> anyhow::Result<()> {
    let directory = bed.directory.join("process");
    std::fs::create_dir_all(&directory)?;
    let service = Service::start(&directory, &[])?;
    // What it does once at the start is over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let idle = cpu::resident(service.child.id())?;
    findings.note("memory idle", idle as f64 / 1e6, "memory of `api`, idle", "MB");

    million_clients(&service)?;
    let used = cpu::resident(service.child.id())?;
    let what = "memory of `api` with a million active clients, one request each";
    findings.note("memory million", used as f64 / 1e6, what, "MB");
    drop(service);
    start_with_a_million_blocks(bed, findings).await
}

/// With PostgreSQL as the store: the second start, which has the snapshot of the first.
async fn start_with_a_million_blocks(bed: &Bed, findings: &mut Findings) -> anyhow::Result<()> {
    let directory = bed.directory.join("blocks");
    std::fs::create_dir_all(&directory)?;
    let database = bed.postgres.database()?;
    Db::postgres(database.url(), 2)?.migrate().await?;
    let rows = directory.join("rows");
    let mut networks: Vec<Network> = ipwarden_bench::addresses::blocked(MILLION + MILLION / 20);
    networks.sort_unstable();
    networks.dedup();
    let lines = networks.iter().take(MILLION).map(|network| format!("{network}\n"));
    std::fs::write(&rows, lines.collect::<String>())?;
    sql(
        database.url(),
        &[
            "create temporary table given (network cidr)",
            &format!("\\copy given from '{}'", rows.display()),
            "insert into blocked_ips (network, reason, origin, created_by, created_at)
             select network, 'a benchmark', 'manual', 'cli:bench', now() from given",
            // Told as a change is: of a version that nobody made, no process believes its snapshot.
            "insert into list_changes (version, list, op, at) values (1, 'blocked', 'set', now())",
            "update list_version set version = 1",
        ],
    )?;
    let store = [("DATABASE_URL", database.url())];
    let first = Service::start(&directory, &store)?;
    let from_store = first.ready;
    let copy = directory.join("data").join(COPY);
    within(Duration::from_secs(30), "the snapshot is on the disk", || {
        Ok(copy.metadata().is_ok_and(|copy| copy.len() > MILLION as u64).then_some(()))
    })?;
    drop(first);
    let mut again = Vec::new();
    for _ in 0..5 {
        again.push(Service::start(&directory, &store)?.ready);
    }
    let what = "start of `api` to ready, a million blocks in PostgreSQL";
    findings.note("start whole", from_store, format!("{what}, no snapshot"), "ms");
    let snapshot = Spread::of(again).median;
    findings.note("start", snapshot, format!("{what} and in the snapshot"), "ms");
    Ok(())
}

/// Runs statements in one session of psql.
pub(super) fn sql(url: &str, statements: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", url]);
    for statement in statements {
        command.args(["-c", statement]);
    }
    let output = command.output().context("psql is needed: `apt-get install postgresql-client`")?;
    anyhow::ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The service as its users start it, on free ports.
struct Service {
    child: Child,
    public: SocketAddr,
    /// From the start of the process until it was ready, in milliseconds.
    ready: f64,
}

impl Service {
    fn start(directory: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Service> {
        let (public, control) = (free_address()?, free_address()?);
        let began = Moment::now().steady;
        let child = Command::new(beside("api")?)
            .current_dir(directory)
            .env_clear()
            .envs(settings.iter().copied())
            .env("IPWARDEN_PUBLIC__BIND", public.to_string())
            .env("IPWARDEN_CONTROL__BIND", control.to_string())
            .env("IPWARDEN_GATE__BIND", "127.0.0.1:0")
            .env("IPWARDEN_CLIENT_IP__TRUSTED_PROXIES", "127.0.0.0/8")
            .env("IPWARDEN_LOG__LEVEL", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut service = Service { child, public, ready: 0.0 };
        loop {
            // Its port is bound before it is ready, so that this waits for exactly that.
            if get(control, "/readyz").is_ok_and(|text| text.starts_with("ready")) {
                break;
            }
            let late = Moment::now().steady - began > 60_000_000;
            anyhow::ensure!(!late, "`api` is not ready after a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
        service.ready = (Moment::now().steady - began) as f64 / 1e3;
        Ok(service)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request of each of a million clients, on one connection, as many at a time as are answered at once:
/// more would wait for each other's acknowledgements.
fn million_clients(service: &Service) -> anyhow::Result<()> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(service.public)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let clients = ipwarden_bench::addresses::clients(MILLION);
    let (mut buffer, mut kept) = (vec![0; 1 << 18], 0);
    for some in clients.chunks(16) {
        let text: String = some
            .iter()
            .map(|client| {
                format!("GET / HTTP/1.1\r\nHost: bench\r\nX-Forwarded-For: {client}\r\n\r\n")
            })
            .collect();
        stream.write_all(text.as_bytes())?;
        let mut answers = 0;
        while answers < some.len() {
            let read = stream.read(&mut buffer[kept..]).context("the answers do not come")?;
            anyhow::ensure!(read > 0, "`api` closed the connection");
            let end = kept + read;
            answers += buffer[..end].windows(STATUS.len()).filter(|some| *some == STATUS).count();
            // What may be the first part of a torn one.
            kept = end.min(STATUS.len() - 1);
            buffer.copy_within(end - kept..end, 0);
        }
    }
    Ok(())
}
