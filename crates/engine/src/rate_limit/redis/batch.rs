//! Questions of one worker, asked together.
//!
//! While a worker goes through the requests that have arrived, their questions gather here; when it comes
//! to an end of them, all go out in one command. So the busier it is, the less each costs: of sixty-four,
//! a third on either side. Who is alone waits for nobody.
//!
//! Only for a single server: the keys of a cluster lie on several nodes. One server that calls itself a
//! cluster says so, and is asked one by one from then on.
//!
//! What this does not do is wait: who asks decides how long that is worth it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::super::Taken;
use super::script::{Question, ask_all};
use crate::redis::RedisConnection;

/// How many go out together at most: as long as Redis works for them, it works for nobody else.
const MOST: usize = 64;

/// Where the questions of one connection gather. It is let go of when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Batches(mpsc::UnboundedSender<Asked>);

/// A question, and who waits for its answer.
struct Asked {
    question: Question,
    answer: oneshot::Sender<Result<Taken, RedisError>>,
}

/// The way of one connection.
#[derive(Clone)]
struct Way {
    connection: RedisConnection,
    one_by_one: Arc<AtomicBool>,
}

impl Batches {
    /// Sends what gathers over this connection, on the runtime that this is called on. Nobody waits for
    /// an answer for longer than `patience`.
    pub(super) fn over(connection: RedisConnection, patience: Duration) -> Batches {
        let (sender, questions) = mpsc::unbounded_channel();
        tokio::spawn(send(Way { connection, one_by_one: Arc::default() }, questions, patience));
        Batches(sender)
    }

    /// The answer to a question, which goes out with the others of this moment. Nothing is sent for a
    /// future that was dropped before.
    pub(super) async fn ask(&self, question: Question) -> Result<Taken, RedisError> {
        let (answer, answered) = oneshot::channel();
        let gone = || RedisError::from((ErrorKind::Io, "the connection is gone"));
        self.0.send(Asked { question, answer }).map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn send(way: Way, mut questions: mpsc::UnboundedReceiver<Asked>, patience: Duration) {
    let mut on_their_way = FuturesUnordered::new();
    let mut batch = Vec::with_capacity(MOST);
    loop {
        tokio::select! {
            gathered = questions.recv_many(&mut batch, MOST) => match gathered {
                0 => break,
                _ => on_their_way.push(way.clone().ask(std::mem::take(&mut batch))),
            },
            Some(()) = on_their_way.next() => {}
        }
    }
    // The connection was given up, maybe because nothing comes over it any more.
    let _ = timeout(patience, async { while on_their_way.next().await.is_some() {} }).await;
}

impl Way {
    async fn ask(mut self, mut batch: Vec<Asked>) {
        batch.retain(|asked| !asked.answer.is_closed());
        if batch.is_empty() {
            return;
        }
        if self.one_by_one.load(Ordering::Relaxed) {
            return self.ask_each(batch).await;
        }
        let questions: Vec<&Question> = batch.iter().map(|asked| &asked.question).collect();
        match ask_all(&questions, &mut self.connection).await {
            Ok(answers) => {
                for (asked, answer) in batch.into_iter().zip(answers) {
                    // It may have become too late for it.
                    let _ = asked.answer.send(answer);
                }
            }
            // Refused as it stands: nothing was counted.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::CrossSlot) => {
                self.one_by_one.store(true, Ordering::Relaxed);
                self.ask_each(batch).await;
            }
            Err(error) => {
                for asked in batch {
                    let _ = asked.answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn ask_each(self, batch: Vec<Asked>) {
        let each = batch.into_iter().map(|Asked { question, answer }| {
            let mut connection = self.connection.clone();
            async move {
                let _ = answer.send(question.ask(&mut connection).await);
            }
        });
        join_all(each).await;
    }
}
