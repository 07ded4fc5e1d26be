//! A TCP proxy in front of a server: adds latency, holds traffic back without a reset, strands or cuts
//! connections, and loses answers with them.
//!
//! It runs on threads of its own, so that it keeps its pace whatever the runtime of a test does. What
//! it deliberately does not do: lose bytes of a connection that goes on, which TCP does not either.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;

/// A proxy on a free port of 127.0.0.1; it ends, and its connections with it, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    weather: Mutex<Weather>,
    changed: Condvar,
    streams: Mutex<Vec<TcpStream>>,
    accepted: Mutex<Vec<Instant>>,
    lost: AtomicU64,
}

/// How the way to the server is just now.
#[derive(Debug, Default)]
struct Weather {
    /// Every answer is so much later.
    latency: Duration,
    /// Nothing passes, in either direction.
    held: bool,
    /// Connections made before so many others lose their next answer.
    losing: usize,
    /// Nothing ever passes on as many connections, the first that were made.
    stranded: usize,
    ended: bool,
}

impl Weather {
    /// Whether nothing passes on the connection of this number.
    fn holds(&self, number: usize) -> bool {
        self.held || number <= self.stranded
    }
}

impl Proxy {
    /// A proxy to `server`, which is first connected to when somebody connects to the proxy.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn to(server: SocketAddr) -> anyhow::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("binding the proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            weather: Mutex::default(),
            changed: Condvar::new(),
            streams: Mutex::default(),
            accepted: Mutex::default(),
            lost: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&accepting, &listener));
        Ok(Proxy { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has every answer arrive so much later, from those that are on their way on.
    pub fn set_latency(&self, latency: Duration) {
        self.change(|weather| weather.latency = latency);
    }

    /// Lets nothing pass, and resets nothing: connections stay open and new ones can be made.
    pub fn hold(&self) {
        self.change(|weather| weather.held = true);
    }

    /// Ends [`Proxy::hold`]; what was held back arrives.
    pub fn release(&self) {
        self.change(|weather| weather.held = false);
    }

    /// Has nothing pass ever again on the connections that there are, and resets none of them: their
    /// other end has forgotten them. New ones can be made.
    pub fn strand(&self) {
        let made = lock(&self.shared.accepted).len();
        self.change(|weather| weather.stranded = made);
    }

    /// Closes every connection, on both sides. New ones can be made.
    pub fn cut(&self) {
        for stream in lock(&self.shared.streams).drain(..) {
            // An error says that it is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Has the server's next answer on each connection that is open now get lost, and the connection
    /// cut with it: the server has done what it was asked, and nobody hears of it.
    pub fn lose_answers(&self) {
        let made = lock(&self.shared.accepted).len();
        self.change(|weather| weather.losing = made);
    }

    /// Answers that were lost so.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Connections that were made to it since it started.
    pub fn accepted(&self) -> u64 {
        lock(&self.shared.accepted).len() as u64
    }

    /// When each of them was made.
    pub fn accepted_at(&self) -> Vec<Instant> {
        lock(&self.shared.accepted).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut lock(&self.shared.weather));
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|weather| weather.ended = true);
        // Wakes the thread that accepts; if it cannot be reached, it is gone.
        let _ = TcpStream::connect(self.address);
        self.cut();
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for client in listener.incoming() {
        if lock(&shared.weather).ended {
            return;
        }
        let Ok(client) = client else { continue };
        let number = {
            let mut accepted = lock(&shared.accepted);
            accepted.push(now());
            accepted.len()
        };
        // A server that is away closes the connection, as its own port would have refused it.
        let Ok(server) = TcpStream::connect(shared.server) else { continue };
        if let Err(error) = join(shared, number, client, server) {
            eprintln!("proxy to {}: {error}", shared.server);
        }
    }
}

fn join(
    shared: &Arc<Shared>,
    number: usize,
    client: TcpStream,
    server: TcpStream,
) -> std::io::Result<()> {
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        lock(&shared.streams).push(stream.try_clone()?);
    }
    pump(shared, client.try_clone()?, server.try_clone()?, move |weather| {
        if weather.holds(number) { Pass::NotNow } else { Pass::After(Duration::ZERO) }
    });
    pump(shared, server, client, move |weather| match weather.holds(number) {
        _ if number <= weather.losing => Pass::Never,
        true => Pass::NotNow,
        false => Pass::After(weather.latency),
    });
    Ok(())
}

/// What becomes of what was read.
enum Pass {
    After(Duration),
    /// Until the weather changes.
    NotNow,
    /// It is lost, and the connection with it.
    Never,
}

/// What was read, and when.
type Chunk = (Instant, Vec<u8>);

/// Carries bytes in one direction on two threads: one reads and notes when, one writes when it is due.
fn pump(
    shared: &Arc<Shared>,
    from: TcpStream,
    to: TcpStream,
    pass: impl Fn(&Weather) -> Pass + Send + 'static,
) {
    let (sender, receiver) = channel();
    std::thread::spawn(move || read(from, &sender));
    let shared = Arc::clone(shared);
    std::thread::spawn(move || write(&shared, to, &receiver, pass));
}

fn read(mut from: TcpStream, sender: &Sender<Chunk>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if sender.send((now(), buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn write(
    shared: &Shared,
    mut to: TcpStream,
    receiver: &Receiver<Chunk>,
    pass: impl Fn(&Weather) -> Pass,
) {
    while let Ok((read, bytes)) = receiver.recv() {
        if !shared.wait(read, &pass) || to.write_all(&bytes).is_err() {
            break;
        }
    }
    // The other side has ended, and so does this one; an error says that it has already.
    let _ = to.shutdown(Shutdown::Both);
}

impl Shared {
    /// Waits until what was read then may pass; `false` when it never will.
    fn wait(&self, read: Instant, pass: impl Fn(&Weather) -> Pass) -> bool {
        let mut weather = lock(&self.weather);
        loop {
            if weather.ended {
                return false;
            }
            let pause = match pass(&weather) {
                Pass::After(latency) => (read + latency).saturating_duration_since(now()),
                Pass::NotNow => Duration::from_secs(60),
                Pass::Never => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
            };
            if pause.is_zero() {
                return true;
            }
            let woken = self.changed.wait_timeout(weather, pause);
            weather = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "latency is made of real time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers every byte with itself.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                });
            }
        });
        address
    }

    fn ask(stream: &mut TcpStream) -> std::io::Result<Duration> {
        let before = now();
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        Ok(before.elapsed())
    }

    #[test]
    fn it_adds_latency_holds_back_without_a_reset_and_cuts() {
        let proxy = Proxy::to(echo()).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        ask(&mut stream).unwrap();
        proxy.set_latency(Duration::from_millis(200));
        assert!(ask(&mut stream).unwrap() >= Duration::from_millis(200));
        proxy.set_latency(Duration::ZERO);

        proxy.hold();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let held = ask(&mut stream).unwrap_err();
        assert!(matches!(held.kind(), std::io::ErrorKind::WouldBlock), "{held:?}");
        proxy.release();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.read_exact(&mut [0]).expect("what was held back arrives");

        proxy.cut();
        ask(&mut stream).unwrap_err();
        ask(&mut TcpStream::connect(proxy.address()).unwrap()).unwrap();
        assert_eq!((proxy.accepted(), proxy.accepted_at().len()), (2, 2));

        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        ask(&mut stream).unwrap();
        proxy.lose_answers();
        ask(&mut stream).unwrap_err();
        assert_eq!(proxy.lost(), 1);
        ask(&mut TcpStream::connect(proxy.address()).unwrap()).expect("a new one answers");

        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        ask(&mut stream).unwrap();
        proxy.strand();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let stranded = ask(&mut stream).unwrap_err();
        assert!(matches!(stranded.kind(), std::io::ErrorKind::WouldBlock), "{stranded:?}");
        ask(&mut TcpStream::connect(proxy.address()).unwrap()).unwrap();
    }
}
