//! One worker's connection: made when first needed, given up when it is silent, made again.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_redis::redis::RedisError;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use super::breaker::Probing;
use super::script::Question;
use super::{Redis, Taken};
use crate::quota::{Bucket, Quota};
use crate::redis::RedisConnection;

/// The pause before the first probe after Redis was lost; it doubles with every failure.
const FIRST_PAUSE: Duration = Duration::from_millis(150);

/// The longest pause: with the time for connecting, exact again within a second of its return.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A worker of this replica. Its connection lives on the runtime of the worker's thread.
#[derive(Debug)]
pub(crate) struct RedisWorker {
    pub(super) redis: Arc<Redis>,
    link: Mutex<Link>,
    /// One connects, the others wait for it.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Link {
    line: Option<Line>,
    /// Whether one was tried: the first is made at once, others not too often.
    was_tried: bool,
    /// The era in which the last one broke.
    broken_in: Option<u64>,
}

/// A connection in use.
#[derive(Clone, Debug)]
struct Line {
    connection: RedisConnection,
    /// The breaker's era that it was made in.
    era: u64,
    /// Commands that it has answered.
    answers: Arc<AtomicU64>,
}

/// A command on its way, its turn with it.
type Pending = Pin<Box<dyn Future<Output = Result<Taken, RedisError>> + Send>>;

/// A connection on its way.
type Connecting<'a> = Pin<Box<dyn Future<Output = Option<Line>> + Send + 'a>>;

impl RedisWorker {
    pub(crate) fn new(redis: Arc<Redis>) -> RedisWorker {
        RedisWorker { redis, link: Mutex::default(), connecting: tokio::sync::Mutex::new(()) }
    }

    /// The answer of Redis, or `None` if it is to be decided locally.
    pub(super) async fn ask(
        self: &Arc<Self>,
        policy: &str,
        bucket: Bucket<'_>,
        quota: Quota,
    ) -> Option<Taken> {
        let Redis { breaker, options, .. } = &*self.redis;
        let line = self.line().await?;
        let turn = self.turn().await?;
        if !breaker.is_closed() || line.era != breaker.era() {
            return None;
        }
        let answers_before = line.answers.load(Ordering::Relaxed);
        let question = Question::new(policy, bucket, quota);
        let mut pending = send(question, line.connection.clone(), turn);
        let Some(answer) = within(options.patience, &mut pending).await else {
            let counts = line.era == breaker.era();
            self.watch(pending, line, answers_before);
            if counts && breaker.missed() {
                self.opened("commands stay unanswered");
            }
            return None;
        };
        match answer {
            Ok(taken) => {
                line.answers.fetch_add(1, Ordering::Relaxed);
                breaker.answered();
                Some(taken)
            }
            Err(error) => {
                self.give_up(&line);
                if line.era == breaker.era() && breaker.missed() {
                    self.opened(&error);
                }
                None
            }
        }
    }

    /// The connection of this worker, made if need be; `None` if Redis is not to be asked.
    async fn line(self: &Arc<Self>) -> Option<Line> {
        if !self.redis.breaker.is_closed() {
            self.keep_probing();
            return None;
        }
        if let Some(line) = self.present_line() {
            return Some(line);
        }
        // Boxed, because it is rare and its future is large and deep.
        let connect: Connecting<'_> = Box::pin(self.connect());
        connect.await
    }

    /// Makes the connection, or waits for who does.
    async fn connect(self: &Arc<Self>) -> Option<Line> {
        let Redis { breaker, url, options, .. } = &*self.redis;
        let _only_one = self.connecting.lock().await;
        if !breaker.is_closed() {
            return None;
        }
        if let Some(line) = self.present_line() {
            return Some(line);
        }
        // Noted before, so that an attempt whose request goes away counts as well.
        let was_tried = std::mem::replace(&mut self.link.lock().was_tried, true);
        if was_tried && !breaker.may_connect_again() {
            return None;
        }
        let era = breaker.era();
        match url.connect(options.connect_patience).await {
            Ok(connection) => {
                if self.link.lock().broken_in == Some(era) {
                    self.redis.interruptions.fetch_add(1, Ordering::Relaxed);
                }
                Some(self.keep(connection, era))
            }
            Err(error) => {
                if breaker.open() {
                    self.opened(&error);
                }
                None
            }
        }
    }

    /// One of this replica's turns, as soon as there is one; `None` if Redis is lost meanwhile.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let Redis { breaker, turns, .. } = &*self.redis;
        if let Ok(turn) = Arc::clone(turns).try_acquire_owned() {
            return Some(turn);
        }
        let mut opened = pin!(breaker.opened());
        opened.as_mut().enable();
        if !breaker.is_closed() {
            return None;
        }
        tokio::select! {
            turn = Arc::clone(turns).acquire_owned() => turn.ok(),
            () = opened => None,
        }
    }

    fn present_line(&self) -> Option<Line> {
        let mut link = self.link.lock();
        let era = self.redis.breaker.era();
        link.line.take_if(|line| line.era != era);
        link.line.clone()
    }

    fn keep(&self, connection: RedisConnection, era: u64) -> Line {
        let line = Line { connection, era, answers: Arc::default() };
        let link = Link { line: Some(line.clone()), was_tried: true, broken_in: None };
        *self.link.lock() = link;
        line
    }

    /// Lets go of this connection, if it is still the one in use.
    fn give_up(&self, line: &Line) {
        let mut link = self.link.lock();
        let is_in_use = |present: &mut Line| Arc::ptr_eq(&present.answers, &line.answers);
        if link.line.take_if(is_in_use).is_some() {
            link.broken_in = Some(line.era);
        }
    }

    /// Waits on for an answer that came too late for its request, and keeps its turn until then:
    /// if nothing at all comes, the connection is silent.
    fn watch(self: &Arc<Self>, mut pending: Pending, line: Line, answers_before: u64) {
        let worker = Arc::clone(self);
        tokio::spawn(async move {
            let options = &worker.redis.options;
            let rest = options.silence.saturating_sub(options.patience);
            match within(rest, &mut pending).await {
                Some(Ok(_)) => {
                    line.answers.fetch_add(1, Ordering::Relaxed);
                }
                Some(Err(_)) => worker.give_up(&line),
                None if line.answers.load(Ordering::Relaxed) != answers_before => {}
                None => {
                    worker.give_up(&line);
                    let breaker = &worker.redis.breaker;
                    if line.era == breaker.era() && breaker.open() {
                        worker.opened("a connection is silent");
                    }
                }
            }
        });
    }

    fn opened(self: &Arc<Self>, cause: impl std::fmt::Display) {
        tracing::warn!(redis = %self.redis.url, %cause, "Redis is away: each replica limits by its share");
        self.keep_probing();
    }

    /// Tries Redis in the background until it answers, unless that is being done already.
    fn keep_probing(self: &Arc<Self>) {
        let Some(probing) = self.redis.breaker.begin_probing() else { return };
        let worker = Arc::clone(self);
        tokio::spawn(async move { worker.probe(probing).await });
    }

    async fn probe(&self, probing: Probing) {
        let Redis { breaker, url, .. } = &*self.redis;
        let mut pause = FIRST_PAUSE;
        loop {
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            if !breaker.may_connect_again() {
                continue;
            }
            probing.half_open();
            let era = breaker.era();
            if let Some(connection) = self.try_once().await {
                self.keep(connection, era);
                probing.close();
                tracing::info!(redis = %url, "Redis answers again: quotas are exact over all replicas");
                return;
            }
            probing.open_again();
        }
    }

    /// A new connection that has answered a question in time.
    async fn try_once(&self) -> Option<RedisConnection> {
        let Redis { url, options, .. } = &*self.redis;
        let mut connection = url.connect(options.connect_patience).await.ok()?;
        timeout(options.patience, Question::probe().ask(&mut connection)).await.ok()?.ok()?;
        Some(connection)
    }
}

/// Hands a command to the writer at the first poll; the turn ends with the answer.
fn send(
    question: Question,
    mut connection: RedisConnection,
    turn: OwnedSemaphorePermit,
) -> Pending {
    Box::pin(async move {
        let answer = question.ask(&mut connection).await;
        drop(turn);
        answer
    })
}

/// The answer within this time, or at the reader's next turn: it may be this thread that was held
/// up, and not Redis.
async fn within(span: Duration, pending: &mut Pending) -> Option<Result<Taken, RedisError>> {
    if let Ok(answer) = timeout(span, &mut *pending).await {
        return Some(answer);
    }
    tokio::task::yield_now().await;
    timeout(Duration::ZERO, pending).await.ok()
}
