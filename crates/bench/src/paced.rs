//! A load at an even pace, for the time that answers take below the maximum.
//!
//! Requests are due at equal distances, whatever became of those before, and an answer's time counts
//! from when its request was due: a server that stalls is not spared the requests that would have come
//! meanwhile. A process of its own, on the core of the load, that never sleeps.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use ipwarden_engine::clock::Moment;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};

use crate::cores::loading;
use crate::load::{CLIENTS, CONNECTIONS};

/// What is to be sent.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Pace {
    server: SocketAddr,
    per_second: f64,
    seconds: u32,
}

/// Answer times in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

/// Has another process send so many requests a second for so many seconds.
pub(crate) fn run(server: SocketAddr, per_second: f64, seconds: u32) -> anyhow::Result<Times> {
    let mut command = loading(std::env::current_exe()?);
    command.args(["paced", &server.to_string(), &per_second.to_string(), &seconds.to_string()]);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the paced load failed: {said}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Is that other process.
pub(crate) fn send(pace: Pace) -> anyhow::Result<Times> {
    let Pace { server, per_second, seconds } = pace;
    let texts: Vec<Vec<u8>> = ipwarden_bench::addresses::clients(CLIENTS)
        .iter()
        .map(|client| {
            format!("GET / HTTP/1.1\r\nHost: {server}\r\nX-Forwarded-For: {client}\r\n\r\n")
        })
        .map(Vec::from)
        .collect();
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(CONNECTIONS));
    let mut connections = Vec::new();
    for at in 0..CONNECTIONS {
        let stream = std::net::TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(at), Interest::READABLE)?;
        connections.push(Connection { stream, due: None, answer: Vec::with_capacity(1024) });
    }
    let (mut free, mut waiting) = ((0..CONNECTIONS).collect::<VecDeque<_>>(), VecDeque::new());
    let all = (per_second * f64::from(seconds)) as usize;
    let mut times: Vec<u64> = Vec::with_capacity(all);
    let began = Moment::now().steady;
    let due = |number: usize| began + (number as f64 * 1e6 / per_second) as u64;
    let (mut number, mut asked) = (0, 0);
    while times.len() < all {
        let now = Moment::now().steady;
        while number < all && due(number) <= now {
            waiting.push_back(due(number));
            number += 1;
        }
        while let (Some(&at), Some(&since)) = (free.front(), waiting.front()) {
            free.pop_front();
            waiting.pop_front();
            connections[at].ask(&texts[asked % texts.len()], since)?;
            asked += 1;
        }
        poll.poll(&mut events, Some(Duration::ZERO))?;
        for event in &events {
            let Token(at) = event.token();
            if let Some(since) = connections[at].answered()? {
                times.push(Moment::now().steady.saturating_sub(since));
                free.push_back(at);
            }
        }
        if now > began + u64::from(seconds + 30) * 1_000_000 {
            bail!("the server is far behind {per_second:.0} requests a second");
        }
    }
    times.sort_unstable();
    let quantile = |part: f64| times[((all as f64 * part) as usize).min(all - 1)];
    Ok(Times { p50: quantile(0.5), p99: quantile(0.99) })
}

struct Connection {
    stream: TcpStream,
    /// When the request on its way was due.
    due: Option<u64>,
    answer: Vec<u8>,
}

impl Connection {
    fn ask(&mut self, text: &[u8], due: u64) -> anyhow::Result<()> {
        // So little always fits into the socket's buffer.
        let sent = self.stream.write(text)?;
        ensure!(sent == text.len(), "a request did not fit into the socket");
        self.due = Some(due);
        self.answer.clear();
        Ok(())
    }

    /// When the request was due whose answer is complete now. Reads all there is, since more is told
    /// only when more comes.
    fn answered(&mut self) -> anyhow::Result<Option<u64>> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(read) => self.answer.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if self.answer.is_empty() {
            return Ok(None);
        }
        let text = std::str::from_utf8(&self.answer).context("an answer that is no text")?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
        ensure!(head.starts_with("HTTP/1.1 200"), "not admitted: {head}");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let named = name.eq_ignore_ascii_case("content-length");
            named.then(|| value.trim().parse::<usize>().ok())?
        });
        let whole = body.len() >= length.context("an answer without a length")?;
        Ok(if whole { self.due.take() } else { None })
    }
}
