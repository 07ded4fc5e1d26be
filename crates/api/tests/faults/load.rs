//! Traffic: clients that hold their connections, ask at a pace, and note what became of each request.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Nobody waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request, and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    pub(crate) client: Ipv4Addr,
    /// The number of the target that was asked.
    pub(crate) target: usize,
    pub(crate) sent: Instant,
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered {
        status: u16,
        reference: String,
    },
    /// No connection could be made: it was never sent.
    Unsent,
    /// It was sent, and no answer came.
    Lost(String),
}

/// Who asks: an address for each request.
pub(crate) type Who = Arc<dyn Fn(&mut fastrand::Rng) -> Ipv4Addr + Send + Sync>;

/// Clients at work, until they are stopped.
pub(crate) struct Load {
    course: Arc<Course>,
    clients: JoinSet<Vec<Shot>>,
}

struct Course {
    /// Of each replica; a restarted one is elsewhere.
    targets: Vec<Mutex<SocketAddr>>,
    who: Mutex<Who>,
    path: String,
    connects: AtomicBool,
    stop: CancellationToken,
}

/// Requests that go on all the time, nearly each from another address.
pub(crate) fn anybody() -> Who {
    let network = Ipv4Addr::new(198, 18, 0, 0).to_bits();
    Arc::new(move |rng| Ipv4Addr::from_bits(network | rng.u32(0..1 << 17)))
}

/// Clients one after the other from this address on; each asks so many times in a row.
pub(crate) fn sweep(first: Ipv4Addr, times: u32) -> Who {
    let asked = AtomicU32::new(0);
    Arc::new(move |_| {
        Ipv4Addr::from_bits(first.to_bits() + asked.fetch_add(1, Ordering::Relaxed) / times)
    })
}

/// Requests of these clients only.
pub(crate) fn among(clients: Vec<Ipv4Addr>) -> Who {
    Arc::new(move |rng| clients[rng.usize(..clients.len())])
}

impl Load {
    /// Starts clients that together send so many requests a second, over the targets in turn.
    pub(crate) fn start(
        targets: &[SocketAddr],
        per_second: u32,
        connections: u32,
        seed: u64,
        who: Who,
    ) -> Load {
        Load::start_on(targets, per_second, connections, seed, who, "/")
    }

    /// The same, with another path than `/`.
    pub(crate) fn start_on(
        targets: &[SocketAddr],
        per_second: u32,
        connections: u32,
        seed: u64,
        who: Who,
        path: &str,
    ) -> Load {
        let course = Arc::new(Course {
            targets: targets.iter().map(|target| Mutex::new(*target)).collect(),
            who: Mutex::new(who),
            path: path.to_owned(),
            connects: AtomicBool::new(true),
            stop: CancellationToken::new(),
        });
        let pace = Duration::from_secs(1) * connections / per_second;
        let mut clients = JoinSet::new();
        for number in 0..connections {
            let rng = fastrand::Rng::with_seed(seed.wrapping_add(u64::from(number)));
            let target = number as usize % targets.len();
            clients.spawn(ask_on(course.clone(), target, pace, rng));
        }
        Load { course, clients }
    }

    /// The replica of this number is there now.
    pub(crate) fn moved(&self, replica: usize, address: SocketAddr) {
        *self.course.targets[replica].lock() = address;
    }

    /// From now on others ask.
    pub(crate) fn set_who(&self, who: Who) {
        *self.course.who.lock() = who;
    }

    /// From now on nobody opens a connection; those that are open are used on.
    pub(crate) fn connect_no_more(&self) {
        self.course.connects.store(false, Ordering::SeqCst);
    }

    /// Ends it when every request has been answered; all that were sent, in order.
    pub(crate) async fn stop(self) -> Vec<Shot> {
        self.course.stop.cancel();
        let mut shots: Vec<Shot> = self.clients.join_all().await.into_iter().flatten().collect();
        shots.sort_by_key(|shot| shot.sent);
        shots
    }
}

async fn ask_on(
    course: Arc<Course>,
    target: usize,
    pace: Duration,
    mut rng: fastrand::Rng,
) -> Vec<Shot> {
    let mut shots = Vec::new();
    let mut line: Option<Line> = None;
    let mut ticks = interval(pace);
    // Without a burst after a pause: the machine is small.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = course.stop.cancelled() => return shots,
            _ = ticks.tick() => {}
        }
        if line.is_none() && !course.connects.load(Ordering::SeqCst) {
            continue;
        }
        let who = course.who.lock().clone();
        let (client, sent) = (who(&mut rng), Instant::now());
        let address = *course.targets[target].lock();
        let outcome = ask(&mut line, address, &course.path, client).await;
        shots.push(Shot { client, target, sent, took: sent.elapsed(), outcome });
    }
}

/// A connection to a replica.
pub(crate) type Line = BufReader<TcpStream>;

pub(crate) async fn connect(address: SocketAddr) -> io::Result<Line> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

async fn ask(
    line: &mut Option<Line>,
    address: SocketAddr,
    path: &str,
    client: Ipv4Addr,
) -> Outcome {
    let mut open = match line.take() {
        Some(open) => open,
        None => match connect(address).await {
            Ok(line) => line,
            Err(_) => return Outcome::Unsent,
        },
    };
    match timeout(PATIENCE, exchange(&mut open, path, client)).await {
        Ok(Ok(answer)) => {
            if answer.whole && !answer.last {
                *line = Some(open);
            }
            Outcome::Answered { status: answer.status, reference: answer.reference }
        }
        Ok(Err(error)) => Outcome::Lost(error.to_string()),
        Err(_) => Outcome::Lost(format!("no answer within {PATIENCE:?}")),
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reference: String,
    /// In seconds, if it was named.
    pub(crate) retry_after: Option<u64>,
    /// The server closes the connection behind it.
    pub(crate) last: bool,
    /// All of the body came, too.
    pub(crate) whole: bool,
}

/// A request of this client, as it is sent.
pub(crate) fn request_of(client: Ipv4Addr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\nX-Forwarded-For: {client}\r\n\r\n"
    )
}

async fn exchange(line: &mut Line, path: &str, client: Ipv4Addr) -> io::Result<Answer> {
    line.get_mut().write_all(request_of(client, path).as_bytes()).await?;
    receive(line).await
}

/// The next answer on this connection.
pub(crate) async fn receive(line: &mut Line) -> io::Result<Answer> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if line.read_line(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length: usize = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let retry_after = field("retry-after").and_then(|text| text.parse().ok());
    let reference = field("x-ipwarden-reference").unwrap_or_default().to_owned();
    let last = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    // With its head the request is answered, whether or not the rest arrives.
    let whole = line.read_exact(&mut vec![0; length]).await.is_ok();
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, reference, retry_after, last, whole })
}
