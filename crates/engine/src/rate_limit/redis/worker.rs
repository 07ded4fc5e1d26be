//! One worker's connection: made when first needed, given up when it is silent, made again.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_redis::redis::RedisError;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::batch::Batches;
use super::breaker::Probing;
use super::script::Question;
use super::{Redis, Taken};
use crate::quota::{Bucket, Quota};
use crate::redis::RedisConnection;
use crate::redis::patience::within;

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
    line: Option<Arc<Line>>,
    /// Whether one was tried: the first is made at once, others not too often.
    was_tried: bool,
    /// The era in which the last one broke.
    broken_in: Option<u64>,
}

/// A connection in use.
#[derive(Debug)]
struct Line {
    way: Way,
    /// The breaker's era that it was made in.
    era: u64,
    /// Commands that it has answered.
    answers: AtomicU64,
}

#[derive(Debug)]
enum Way {
    /// To one server: the questions of a moment go out together.
    Single(Batches),
    /// To the nodes of a cluster: each goes to the node of its key.
    Cluster(RedisConnection),
}

/// A command on its way, its turn with it.
type Pending = Pin<Box<dyn Future<Output = Result<Taken, RedisError>> + Send>>;

/// A connection on its way.
type Connecting<'a> = Pin<Box<dyn Future<Output = Option<Arc<Line>>> + Send + 'a>>;

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
        let mut pending = send(question, Arc::clone(&line), turn);
        let Some(answer) = within(options.patience, pending.as_mut()).await else {
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
    async fn line(self: &Arc<Self>) -> Option<Arc<Line>> {
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
    async fn connect(self: &Arc<Self>) -> Option<Arc<Line>> {
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

    fn present_line(&self) -> Option<Arc<Line>> {
        let mut link = self.link.lock();
        let era = self.redis.breaker.era();
        link.line.take_if(|line| line.era != era);
        link.line.clone()
    }

    fn keep(&self, connection: RedisConnection, era: u64) -> Arc<Line> {
        let way = match connection.is_single() {
            true => Way::Single(Batches::over(connection, self.redis.options.silence)),
            false => Way::Cluster(connection),
        };
        let line = Arc::new(Line { way, era, answers: AtomicU64::new(0) });
        let link = Link { line: Some(Arc::clone(&line)), was_tried: true, broken_in: None };
        *self.link.lock() = link;
        line
    }

    /// Lets go of this connection, if it is still the one in use.
    fn give_up(&self, line: &Arc<Line>) {
        let mut link = self.link.lock();
        let is_in_use = |present: &mut Arc<Line>| Arc::ptr_eq(present, line);
        if link.line.take_if(is_in_use).is_some() {
            link.broken_in = Some(line.era);
        }
    }

    /// Waits on for an answer that came too late for its request, and keeps its turn until then:
    /// if nothing at all comes, the connection is silent.
    fn watch(self: &Arc<Self>, mut pending: Pending, line: Arc<Line>, answers_before: u64) {
        let worker = Arc::clone(self);
        tokio::spawn(async move {
            let options = &worker.redis.options;
            let rest = options.silence.saturating_sub(options.patience);
            match within(rest, pending.as_mut()).await {
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
        let question = Question::probe();
        within(options.patience, pin!(question.ask(&mut connection))).await?.ok()?;
        Some(connection)
    }
}

/// Hands a command to the writer at the first poll; the turn ends with the answer.
fn send(question: Question, line: Arc<Line>, turn: OwnedSemaphorePermit) -> Pending {
    Box::pin(async move {
        let answer = match &line.way {
            Way::Single(batches) => batches.ask(question).await,
            Way::Cluster(connection) => question.ask(&mut connection.clone()).await,
        };
        drop(turn);
        answer
    })
}
