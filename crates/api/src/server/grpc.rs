//! The gate over gRPC: HTTP/2 on one side, the guard's workers on the other.
//!
//! Connections are served by the runtime of the process, questions by threads of their own, because a worker
//! of the guard stays on its thread.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Polled, Poll};
use std::time::Duration;

use envoy_types::ext_authz::v3::pb::{
    Authorization, AuthorizationServer, CheckRequest, CheckResponse,
};
use futures_util::stream::{Stream, unfold};
use ipwarden_core::context::Context;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

use super::{FINISH_SECONDS, workers};
use crate::connections::{Connection, Patient};
use crate::routes::gate::envoy;
use crate::routes::gate::forward_auth::{Asker, Headers};

/// The head of a request, and what little Envoy says besides, in bytes: eight times as much as it takes
/// of a head by default.
const LARGEST_QUESTION: usize = 512 << 10;
/// Questions that wait for a thread, of each; whoever asks beyond waits.
const WAITING: usize = 1_024;
/// After a connection could not be accepted, because the process is short of files, for example.
const PAUSE: Duration = Duration::from_millis(100);

/// The listener.
pub(super) struct Grpc {
    stop: CancellationToken,
    served: JoinHandle<()>,
    threads: TaskTracker,
}

/// Hands each question to the next thread.
struct Questions {
    threads: Vec<mpsc::Sender<Question>>,
    next: AtomicUsize,
}

struct Question {
    peer: IpAddr,
    request: CheckRequest,
    answer: oneshot::Sender<CheckResponse>,
}

/// An open connection; it gives its place back when it ends.
struct Open {
    stream: TcpStream,
    caller: Caller,
    _place: OwnedSemaphorePermit,
}

/// Who asks on a connection.
#[derive(Clone)]
struct Caller {
    peer: IpAddr,
    connection: Option<Arc<Connection>>,
}

impl Grpc {
    /// Serves until it is stopped; at most so many connections at once.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(super) fn serve(
        context: &Arc<Context>,
        listener: std::net::TcpListener,
        (patient, most): (Patient, usize),
    ) -> anyhow::Result<Grpc> {
        let (stop, threads) = (CancellationToken::new(), TaskTracker::new());
        let headers = Headers::of(&context.config)?;
        let answering = (0..workers()).map(|_| thread(context, &headers, &threads));
        let questions =
            Questions { threads: answering.collect::<io::Result<_>>()?, next: AtomicUsize::new(0) };
        threads.close();
        let service =
            AuthorizationServer::new(questions).max_decoding_message_size(LARGEST_QUESTION);
        let incoming = accepted(TcpListener::from_std(listener)?, patient, most);
        let stopped = stop.clone().cancelled_owned();
        let serving = Server::builder().serve_with_incoming_shutdown(service, incoming, stopped);
        let served = tokio::spawn(async {
            if let Err(error) = serving.await {
                tracing::error!(%error, "gate.grpc_bind is not served any more");
            }
        });
        Ok(Grpc { stop, served, threads })
    }

    /// Accepts nobody any more, and has accepted questions answered and recorded.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        let finished = async {
            let _ended = self.served.await;
            self.threads.wait().await;
        };
        if tokio::time::timeout(Duration::from_secs(FINISH_SECONDS), finished).await.is_err() {
            tracing::debug!(
                "somebody keeps a connection to gate.grpc_bind; it ends with the process"
            );
        }
    }
}

/// A thread that answers questions until nobody can ask any more.
fn thread(
    context: &Arc<Context>,
    headers: &Headers,
    threads: &TaskTracker,
) -> io::Result<mpsc::Sender<Question>> {
    let (asks, mut asked) = mpsc::channel::<Question>(WAITING);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (context, headers, running) = (context.clone(), headers.clone(), threads.token());
    std::thread::Builder::new().name("gate-grpc".to_owned()).spawn(move || {
        LocalSet::new().block_on(&runtime, async {
            let asker = Rc::new(Asker::new(&context, headers));
            let mut answering = JoinSet::new();
            loop {
                tokio::select! {
                    Some(question) = asked.recv() => {
                        answering.spawn_local(answer(asker.clone(), question));
                    }
                    Some(_) = answering.join_next() => {}
                    else => break,
                }
            }
        });
        drop(running);
    })?;
    Ok(asks)
}

async fn answer(asker: Rc<Asker>, question: Question) {
    let told = envoy::check(&asker, question.peer, &question.request).await;
    // Whoever went away meanwhile is in the log all the same.
    let _gone = question.answer.send(told);
}

#[tonic::async_trait]
impl Authorization for Questions {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let Some(Caller { peer, connection }) = request.extensions().get::<Caller>().cloned()
        else {
            return Err(Status::internal("a question without a connection"));
        };
        let connection = connection.as_deref();
        connection.inspect(|connection| connection.asks());
        let told = self.ask(peer, request.into_inner()).await;
        connection.inspect(|connection| connection.is_answered());
        told.map(Response::new).ok_or_else(|| Status::internal("nobody answers"))
    }
}

impl Questions {
    async fn ask(&self, peer: IpAddr, request: CheckRequest) -> Option<CheckResponse> {
        let (answer, told) = oneshot::channel();
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        self.threads[next].send(Question { peer, request, answer }).await.ok()?;
        told.await.ok()
    }
}

/// Who connects, so many at once; who comes beyond waits to be accepted.
fn accepted(
    listener: TcpListener,
    patient: Patient,
    most: usize,
) -> impl Stream<Item = Result<Open, Infallible>> {
    let places = Arc::new(Semaphore::new(most));
    unfold((listener, patient, places), |all| async {
        let (listener, patient, places) = &all;
        let place = places.clone().acquire_owned().await.ok()?;
        let (stream, address) = loop {
            match listener.accept().await {
                Ok(accepted) => break accepted,
                Err(error) => tracing::debug!(%error, "gate.grpc_bind: nobody could be accepted"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        Some((Ok(Open::new(stream, address, patient, place)), all))
    })
}

impl Open {
    fn new(
        stream: TcpStream,
        address: SocketAddr,
        patient: &Patient,
        place: OwnedSemaphorePermit,
    ) -> Open {
        // Answers are small, and each is waited for.
        let _slower = stream.set_nodelay(true);
        let caller = Caller { peer: address.ip(), connection: patient.connection(&stream) };
        Open { stream, caller, _place: place }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl Connected for Open {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Open {
    fn poll_read(
        self: Pin<&mut Self>,
        polled: &mut Polled<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(polled, into)
    }
}

impl AsyncWrite for Open {
    fn poll_write(
        self: Pin<&mut Self>,
        polled: &mut Polled<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(polled, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, polled: &mut Polled<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, polled: &mut Polled<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(polled)
    }
}
