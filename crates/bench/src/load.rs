//! The load: wrk from Debian on a core of its own, from as many clients as there are in a file.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use ipwarden_bench::OVER;
use serde::Deserialize;

use crate::cores::loading;

/// Connections that stay open, as many as the issue of this benchmark asked for.
pub(crate) const CONNECTIONS: usize = 64;
/// Distinct clients.
pub(crate) const CLIENTS: usize = 100_000;

/// What a browser sends besides.
const USER_AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// Each request comes from the next client of the file, whose lines hold an address and a path.
const SCRIPT: &str = r#"
local requests, at = {}, 0

function init(arguments)
    for line in io.lines(arguments[1]) do
        local address, path = line:match("(%S+) (%S+)")
        local headers = { ["X-Forwarded-For"] = address, ["User-Agent"] = arguments[3], ["Accept"] = "*/*" }
        for name, value in pairs(wrk.headers) do headers[name] = value end
        requests[#requests + 1] = wrk.format("GET", path, headers)
    end
    at = tonumber(arguments[2]) % #requests
end

function request()
    at = at % #requests + 1
    return requests[at]
end
"#;

/// Each request comes from one of so many numbered clients, far from the one before; put together here,
/// because no file of ten million fits into wrk.
const NUMBERED: &str = r#"
local clients, at, step = 1, 0, 7919
local head, tail

function init(arguments)
    clients, at = tonumber(arguments[1]), tonumber(arguments[2])
    head = "GET / HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\nX-Forwarded-For: "
    tail = "\r\nUser-Agent: " .. arguments[3] .. "\r\nAccept: */*\r\n\r\n"
end

function request()
    at = (at + step) % clients
    local high, middle, low = math.floor(at / 65536), math.floor(at / 256) % 256, at % 256
    return head .. string.format("11.%d.%d.%d", high, middle, low) .. tail
end
"#;

/// What wrk says at its end.
const SUMMARY: &str = r#"
function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '\nsummary {"requests":%d,"micros":%d,"refused":%d,"failed":%d}\n',
        summary.requests, summary.duration, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout))
end
"#;

/// Which part of the requests asks for the path whose quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    /// None.
    Plain,
    /// Nine in ten.
    NineInTenOver,
}

/// What came of one round.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(crate) struct Outcome {
    /// Answers.
    pub(crate) requests: u64,
    /// How long it took, in microseconds.
    pub(crate) micros: u64,
    /// Answers with a status of 400 or more.
    pub(crate) refused: u64,
    /// Connections and requests that failed.
    pub(crate) failed: u64,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / (self.micros.max(1) as f64 / 1e6)
    }
}

/// The files that wrk reads.
pub(crate) struct Load {
    script: PathBuf,
    numbered: PathBuf,
    plain: PathBuf,
    nine_in_ten: PathBuf,
}

impl Load {
    /// Writes the script and the clients.
    pub(crate) fn new(directory: &Path) -> anyhow::Result<Load> {
        let load = Load {
            script: directory.join("clients.lua"),
            numbered: directory.join("numbered.lua"),
            plain: directory.join("plain.txt"),
            nine_in_ten: directory.join("nine-in-ten.txt"),
        };
        std::fs::write(&load.script, [SCRIPT, SUMMARY].concat())?;
        std::fs::write(&load.numbered, [NUMBERED, SUMMARY].concat())?;
        let clients = ipwarden_bench::addresses::clients(CLIENTS);
        let lines = |path: fn(usize) -> &'static str| -> String {
            clients.iter().enumerate().map(|(at, ip)| format!("{ip} {}\n", path(at))).collect()
        };
        std::fs::write(&load.plain, lines(|_| "/"))?;
        std::fs::write(&load.nine_in_ten, lines(|at| if at % 10 == 0 { "/" } else { OVER }))?;
        Ok(load)
    }

    /// Asks for so many seconds, beginning with the client of number `from`.
    pub(crate) fn run(
        &self,
        server: SocketAddr,
        mix: Mix,
        seconds: u32,
        from: u64,
    ) -> anyhow::Result<Outcome> {
        self.run_on(CONNECTIONS, server, mix, seconds, from)
    }

    /// The same on so many connections.
    pub(crate) fn run_on(
        &self,
        connections: usize,
        server: SocketAddr,
        mix: Mix,
        seconds: u32,
        from: u64,
    ) -> anyhow::Result<Outcome> {
        let clients = match mix {
            Mix::Plain => &self.plain,
            Mix::NineInTenOver => &self.nine_in_ten,
        };
        wrk(connections, server, seconds, (&self.script, clients.as_os_str(), from))
    }

    /// Asks for so many seconds, as so many numbered clients.
    pub(crate) fn run_numbered(
        &self,
        connections: usize,
        server: SocketAddr,
        clients: usize,
        seconds: u32,
        from: u64,
    ) -> anyhow::Result<Outcome> {
        let clients = clients.to_string();
        wrk(connections, server, seconds, (&self.numbered, clients.as_ref(), from))
    }
}

/// Runs a script, which gets an argument of its own and where to begin.
fn wrk(
    connections: usize,
    server: SocketAddr,
    seconds: u32,
    (script, argument, from): (&Path, &OsStr, u64),
) -> anyhow::Result<Outcome> {
    let mut command = loading("wrk");
    command.args(["--threads", "1"]);
    command.args(["--connections", &connections.to_string(), "--timeout", "10s"]);
    command.arg("--duration").arg(format!("{seconds}s")).arg("--script").arg(script);
    command.arg(format!("http://{server}/")).arg("--").arg(argument);
    command.args([&from.to_string(), USER_AGENT]);
    let output =
        command.output().context("wrk and taskset are needed: `apt-get install wrk util-linux`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let summary = text.lines().find_map(|line| line.strip_prefix("summary "));
    let Some(summary) = summary.filter(|_| output.status.success()) else {
        bail!("wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    };
    Ok(serde_json::from_str(summary)?)
}
