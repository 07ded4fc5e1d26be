//! Hints over Redis that a list has changed: they only make it quick.
//!
//! A hint is the new version as a decimal number, on one channel. It may be lost, doubled or late,
//! and nothing depends on it: whoever hears a version that it does not have asks the store. What was
//! announced while the subscription was away is found by asking once after every reconnect.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{self, ErrorKind, RedisError};
use futures_util::StreamExt;
use ipwarden_engine::redis::RedisUrl;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::Status;
use crate::redis::{RedisPool, RedisPoolError};

/// The channel of the hints.
pub const CHANNEL: &str = "ipwarden:lists";

const PATIENCE: Duration = Duration::from_secs(2);
const RETRY_MS: std::ops::Range<u64> = 250..750;
/// A connection whose other end vanished without a word looks like one on which nothing happens.
const ASK_AFTER: Duration = Duration::from_secs(10);

/// Tells every replica that the lists have reached `version`, after that is committed.
///
/// # Errors
/// If Redis is away; then the replicas find out with their next poll, and nothing is lost.
pub async fn announce(redis: &RedisPool, version: i64) -> Result<(), RedisPoolError> {
    let mut connection = redis.connection().await?;
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(CHANNEL).arg(version);
    let sent = timeout(PATIENCE, publish.query_async::<()>(&mut connection)).await;
    sent.unwrap_or_else(|_| Err(silence()))?;
    Ok(())
}

/// Has the store asked whenever a version is announced that the lists do not have.
pub(super) async fn listen(
    redis: RedisUrl,
    nudge: Arc<Notify>,
    status: watch::Receiver<Status>,
) -> Infallible {
    let mut away = false;
    loop {
        let lost = match subscribe(&redis, &nudge, &status, &mut away).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if !away {
            tracing::warn!(error = %lost, "no hints from Redis; changes arrive with the next poll");
            away = true;
        }
        // Not all replicas at the same instant.
        sleep(Duration::from_millis(fastrand::u64(RETRY_MS))).await;
    }
}

async fn subscribe(
    redis: &RedisUrl,
    nudge: &Notify,
    status: &watch::Receiver<Status>,
    away: &mut bool,
) -> Result<Infallible, RedisError> {
    let (mut sink, mut hints) = redis.subscriber(PATIENCE).await?.split();
    answered(sink.subscribe(CHANNEL)).await?;
    if std::mem::take(away) {
        tracing::info!("hints from Redis again");
    }
    nudge.notify_one();
    loop {
        match timeout(ASK_AFTER, hints.next()).await {
            Ok(Some(hint)) => {
                let version = hint.get_payload::<i64>();
                if version.is_ok_and(|version| version != status.borrow().version) {
                    nudge.notify_one();
                }
            }
            Ok(None) => return Err(RedisError::from((ErrorKind::Io, "the connection was closed"))),
            Err(_) => answered(sink.ping::<redis::Value>()).await.map(drop)?,
        }
    }
}

async fn answered<T>(asked: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(silence()))
}

fn silence() -> RedisError {
    RedisError::from((ErrorKind::Io, "no answer within the time allowed"))
}
