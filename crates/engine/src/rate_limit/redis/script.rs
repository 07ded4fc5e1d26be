//! The one script that decides, and the key of a log.
//!
//! One key per decision, so that a cluster can hold it; Redis's own time, so that replicas need
//! not agree on theirs.

use std::fmt::Write;
use std::sync::LazyLock;
use std::time::Duration;

use deadpool_redis::redis::{self, ErrorKind, RedisError, Script, ServerErrorKind};

use super::super::{GRAINS, LARGEST_EXACT_LIMIT, Taken};
use crate::quota::{Bucket, Quota};
use crate::redis::RedisConnection;

const SOURCE: &str = include_str!("take.lua");

static HASH: LazyLock<String> = LazyLock::new(|| Script::new(SOURCE).get_hash().to_owned());

/// A question to Redis, ready to be sent.
pub(super) struct Question {
    key: String,
    quota: Quota,
}

impl Question {
    /// `ipwarden:quota:v1:{anonymous|203.0.113.9}` or `{authenticated|id|alice}`: no network begins
    /// with `id|`, and no name of a policy holds `|`.
    pub(super) fn new(policy: &str, bucket: Bucket<'_>, quota: Quota) -> Question {
        let mut key = String::with_capacity(64);
        let _infallible = match bucket {
            Bucket::Network(network) => write!(key, "ipwarden:quota:v1:{{{policy}|{network}}}"),
            Bucket::Identity(identity) => {
                write!(key, "ipwarden:quota:v1:{{{policy}|id|{identity}}}")
            }
        };
        Question { key, quota }
    }

    /// A question that changes nobody's quota, and whose answer shows that Redis takes writes.
    pub(super) fn probe() -> Question {
        let quota = Quota::new(LARGEST_EXACT_LIMIT, Duration::from_millis(1));
        Question { key: "ipwarden:quota:v1:{probe}".to_owned(), quota }
    }

    /// Asks by the script's hash, and with its text if Redis does not know it (any more).
    pub(super) async fn ask(&self, redis: &mut RedisConnection) -> Result<Taken, RedisError> {
        match self.run("EVALSHA", &HASH, redis).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.run("EVAL", SOURCE, redis).await
            }
            answer => answer,
        }
    }

    async fn run(
        &self,
        command: &str,
        script: &str,
        redis: &mut RedisConnection,
    ) -> Result<Taken, RedisError> {
        let period = self.quota.period_micros();
        let mut call = redis::cmd(command);
        call.arg(script).arg(1).arg(&self.key);
        call.arg(self.quota.limit).arg(period).arg(grain(self.quota));
        let (admitted, remaining, frees_in): (u8, u32, u64) = call.query_async(redis).await?;
        Ok(Taken { admitted: admitted == 1, remaining, frees_in: Duration::from_micros(frees_in) })
    }
}

fn grain(quota: Quota) -> u64 {
    match quota.limit {
        0..=LARGEST_EXACT_LIMIT => 0,
        _ => (quota.period_micros() / GRAINS).max(1),
    }
}

#[cfg(test)]
mod tests;
