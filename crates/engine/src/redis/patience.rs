//! How long to wait for somebody else on a thread that may itself be held up.

use std::pin::Pin;
use std::time::Duration;

use futures_util::future::poll_immediate;
use tokio::task::yield_now;
use tokio::time::timeout;

/// In so many naps a span is waited out.
const NAPS: u32 = 4;

/// The output of `future` if it is there within `span`, in which this thread was looking out for it.
///
/// A worker with many requests at once comes back to its sockets and timers late: what was asked is
/// then written late, the answer has lain there unread, and the span seems to be over. So a span is
/// waited out in naps, each begun when the one before was over and each with a look at the sockets
/// behind it. However long this thread was busy meanwhile, that is one nap; what does not answer for
/// all of them was asked, looked for, and silent. Where nothing holds the thread up, they take as long
/// as the span.
pub(crate) async fn within<F: Future + ?Sized>(
    span: Duration,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    for _ in 0..NAPS {
        if let Ok(output) = timeout(span / NAPS, future.as_mut()).await {
            return Some(output);
        }
    }
    // What was read together with the end of the last nap has not reached the future yet.
    yield_now().await;
    poll_immediate(future).await
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::pin::pin;
    use std::thread;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;

    const SPAN: Duration = Duration::from_millis(40);

    #[tokio::test]
    async fn silence_is_noticed_when_the_span_is_over() {
        let begun = Instant::now();
        assert_eq!(within(SPAN, pin!(std::future::pending::<()>())).await, None);
        let took = begun.elapsed();
        assert!((SPAN..SPAN * 10).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn an_answer_that_lay_in_the_socket_while_this_thread_was_busy_is_no_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut peer = std::net::TcpStream::connect(address).unwrap();
            let mut question = [0];
            while peer.read_exact(&mut question).is_ok() {
                // The way of an answer, much shorter than the span.
                thread::sleep(SPAN / 10);
                peer.write_all(&question).unwrap();
            }
        });
        let (mut peer, _) = listener.accept().await.unwrap();
        for _ in 0..5 {
            // Others of this thread's requests, each longer than the span.
            let others = tokio::spawn(async {
                for _ in 0..3 {
                    thread::sleep(SPAN * 2);
                    yield_now().await;
                }
            });
            // Written and read by a task of this thread, as commands are, when the others let it.
            let (answer, asked) = tokio::sync::oneshot::channel();
            let mut line: TcpStream = peer;
            let driver = tokio::spawn(async move {
                line.write_all(b"?").await.unwrap();
                line.read_exact(&mut [0]).await.unwrap();
                answer.send(()).unwrap();
                line
            });
            assert_eq!(within(SPAN, pin!(asked)).await, Some(Ok(())));
            others.await.unwrap();
            peer = driver.await.unwrap();
        }
    }
}
