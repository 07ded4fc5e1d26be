//! Closes connections on which nobody asks anything.
//!
//! The server itself waits five seconds for the head of a connection's first request. Whoever has sent one
//! could send the second as slowly as he likes, or a body that nobody reads, and hold a connection for
//! ever. So each connection has to bring a whole request head within [`PATIENCE`] of the last answer, or
//! within what else its listener has.
//!
//! What this deliberately does not do: end a request that is being answered, or judge who is slow; a
//! connection costs a few kilobytes, and how many there may be is for [`most_per_worker`] to say.

use std::any::Any;
use std::future::Future;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Extensions, Service, ServiceRequest, ServiceResponse};
use actix_web::{Error, HttpRequest};
use ipwarden_engine::clock::Moment;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

/// How long a connection may be open without a request. Longer than the server keeps one alive on which
/// nothing is sent at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);
/// How often the connections are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Files that a process has open for other things than connections to it.
const OTHER_FILES: u64 = 512;
/// Each connection is a socket and the handle that shuts it down.
const FILES_OF_A_CONNECTION: u64 = 2;
/// The most connections of a worker thread, however many files there may be.
const MOST: usize = 25_000;

/// The open connections of all listeners.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<Vec<Weak<Connection>>>>);

/// The same as one listener sees them.
#[derive(Clone)]
pub(crate) struct Patient {
    all: Connections,
    /// Between a request and the next.
    patience: Duration,
}

/// One of them, in the server's data of the connection, which ends with it.
pub(crate) struct Connection {
    /// A handle of its own: a number alone might be somebody else's socket by now.
    socket: TcpStream,
    /// When it may be closed, on the steady clock in microseconds.
    until: AtomicU64,
    patience: Duration,
}

impl Patient {
    /// What the server calls when somebody has connected.
    pub(crate) fn opened(&self, io: &dyn Any, data: &mut Extensions) {
        let Some(stream) = io.downcast_ref::<actix_web::rt::net::TcpStream>() else { return };
        // Else the second of two answers to requests that came together waits 40 ms for the client's word.
        let _ = stream.set_nodelay(true);
        if let Some(connection) = self.connection(stream) {
            data.insert(connection);
        }
    }

    /// Somebody who has connected.
    pub(crate) fn connection(&self, stream: &impl AsFd) -> Option<Arc<Connection>> {
        // Without a file for it the connection is only watched by the server itself.
        let socket = stream.as_fd().try_clone_to_owned().ok()?;
        let until = AtomicU64::new(deadline(Moment::now(), PATIENCE));
        let patience = self.patience;
        let connection = Arc::new(Connection { socket: socket.into(), until, patience });
        self.all.0.lock().push(Arc::downgrade(&connection));
        Some(connection)
    }
}

impl Connection {
    /// It is not overdue from now on.
    pub(crate) fn asks(&self) {
        self.until.store(u64::MAX, Ordering::Relaxed);
    }

    /// The next request may take its time.
    pub(crate) fn is_answered(&self) {
        self.until.store(deadline(Moment::now(), self.patience), Ordering::Relaxed);
    }
}

impl Connections {
    /// The connections of a listener that waits so long between requests; for the first it waits
    /// [`PATIENCE`].
    pub(crate) fn patient(&self, patience: Duration) -> Patient {
        Patient { all: self.clone(), patience }
    }

    /// Closes what is overdue, until it is told to stop.
    pub(crate) async fn watch(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.close_overdue(Moment::now()),
            }
        }
    }

    fn close_overdue(&self, now: Moment) {
        self.0.lock().retain(|connection| {
            let Some(open) = connection.upgrade() else { return false };
            let overdue = open.until.load(Ordering::Relaxed) < now.steady;
            if overdue {
                // It may be gone already. The server reads an end and forgets it.
                let _gone = open.socket.shutdown(Shutdown::Both);
            }
            !overdue
        });
    }
}

/// Answers a request; meanwhile its connection is not overdue.
pub(crate) fn answering<S, B>(
    request: ServiceRequest,
    service: &S,
) -> impl Future<Output = Result<ServiceResponse<B>, Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    let connection = request.conn_data::<Arc<Connection>>().cloned();
    if let Some(connection) = &connection {
        connection.asks();
    }
    let answer = service.call(request);
    async move {
        let answer = answer.await;
        if let Some(connection) = connection {
            connection.is_answered();
        }
        answer
    }
}

/// An answer that goes on for as long as its reader likes: its connection is not overdue meanwhile.
pub(crate) struct Unending(Option<Arc<Connection>>);

impl Unending {
    /// On the connection of this request.
    pub(crate) fn on(request: &HttpRequest) -> Unending {
        Unending(request.conn_data::<Arc<Connection>>().cloned())
    }

    /// Whether its reader has closed the connection. The server itself learns that when it writes.
    pub(crate) fn was_left(&self) -> bool {
        let Some(connection) = &self.0 else { return false };
        match connection.socket.peek(&mut [0]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }

    /// Says that it goes on, once the head of the answer has left.
    pub(crate) fn goes_on(&self) {
        if let Some(connection) = &self.0 {
            connection.asks();
        }
    }
}

impl Drop for Unending {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.is_answered();
        }
    }
}

fn deadline(now: Moment, patience: Duration) -> u64 {
    now.steady.saturating_add(u64::try_from(patience.as_micros()).unwrap_or(u64::MAX))
}

/// How many connections each worker of a listener may have, so that all of them leave files for the rest;
/// who comes beyond waits to be accepted. Raises the limit of open files as far as it may be raised: the
/// usual 1,024 is a relic of `select`, and a few slow clients would use it up.
pub(crate) fn most_per_worker(workers: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Refused or not: what holds is asked for below.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = getrlimit(Resource::Nofile).current.or(current).unwrap_or(u64::MAX);
    let connections = files.saturating_sub(OTHER_FILES) / FILES_OF_A_CONNECTION;
    let each = usize::try_from(connections).unwrap_or(MOST) / workers.max(1);
    each.clamp(64, MOST)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_what_is_overdue_is_closed_and_what_is_gone_is_forgotten() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = |until| {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_nonblocking(true).unwrap();
            let socket = listener.accept().unwrap().0;
            (
                client,
                Arc::new(Connection { socket, until: AtomicU64::new(until), patience: PATIENCE }),
            )
        };
        let all = Connections::default();
        let (mut slow, one) = connect(99);
        let (mut quick, two) = connect(100);
        let (_, gone) = connect(100);
        *all.0.lock() = [&one, &two, &gone].map(Arc::downgrade).to_vec();
        drop(gone);
        all.close_overdue(Moment { wall: 0, steady: 100 });
        assert_eq!(all.0.lock().len(), 1);
        let mut byte = [0];
        slow.set_nonblocking(false).unwrap();
        assert_eq!(slow.read(&mut byte).unwrap(), 0, "closed");
        let open = quick.read(&mut byte).unwrap_err();
        assert_eq!(open.kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn connections_leave_files_for_the_rest() {
        let each = most_per_worker(4);
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum, "as many as may be");
        assert!((64..=MOST).contains(&each));
        assert!(current.is_none_or(|files| each as u64 * 4 * 2 + 512 <= files.max(1_024)));
    }
}
