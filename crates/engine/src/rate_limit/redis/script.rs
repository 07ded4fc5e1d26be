//! The one script that decides, and the key of a log.
//!
//! One key per decision, so that a cluster can hold it; Redis's own time, so that replicas need
//! not agree on theirs. One server may be asked about many keys at once: what a call of a script costs
//! besides its work, on both sides, is then shared by all of them.

use std::fmt::Write;
use std::sync::LazyLock;
use std::time::Duration;

use deadpool_redis::redis::{self, ErrorKind, RedisError, Script, ServerErrorKind, Value};

use super::super::{GRAINS, LARGEST_EXACT_LIMIT, Taken};
use crate::quota::{Bucket, Quota};
use crate::redis::RedisConnection;

const SOURCE: &str = include_str!("take.lua");

static HASH: LazyLock<String> = LazyLock::new(|| Script::new(SOURCE).get_hash().to_owned());

/// Under which key Redis counts the requests of `bucket` against the quota of `policy`:
/// `ipwarden:quota:v1:{anonymous|203.0.113.9}` or `{authenticated|id|alice}`. No network begins with `id|`,
/// and no name of a policy holds `|`.
pub fn redis_key(policy: &str, bucket: Bucket<'_>) -> String {
    let mut key = String::with_capacity(64);
    let _infallible = match bucket {
        Bucket::Network(network) => write!(key, "ipwarden:quota:v1:{{{policy}|{network}}}"),
        Bucket::Identity(identity) => write!(key, "ipwarden:quota:v1:{{{policy}|id|{identity}}}"),
    };
    key
}

/// A question to Redis, ready to be sent.
pub(super) struct Question {
    key: String,
    quota: Quota,
}

impl Question {
    pub(super) fn new(policy: &str, bucket: Bucket<'_>, quota: Quota) -> Question {
        Question { key: redis_key(policy, bucket), quota }
    }

    /// A question that changes nobody's quota, and whose answer shows that Redis takes writes.
    pub(super) fn probe() -> Question {
        let quota = Quota::new(LARGEST_EXACT_LIMIT, Duration::from_millis(1));
        Question { key: "ipwarden:quota:v1:{probe}".to_owned(), quota }
    }

    /// Asks this alone.
    pub(super) async fn ask(&self, redis: &mut RedisConnection) -> Result<Taken, RedisError> {
        ask_all(&[self], redis).await?.pop().unwrap_or_else(|| Err(no_answer("nothing")))
    }
}

/// Asks all of them at once, and gets an answer to each: by the script's hash, and with its text if Redis
/// does not know it (any more). Of several, all must lie on one server.
pub(super) async fn ask_all(
    questions: &[&Question],
    redis: &mut RedisConnection,
) -> Result<Vec<Result<Taken, RedisError>>, RedisError> {
    let values = match run("EVALSHA", &HASH, questions, redis).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            run("EVAL", SOURCE, questions, redis).await?
        }
        answer => answer?,
    };
    let (answers, _) = values.as_chunks::<3>();
    Ok(answers.iter().map(taken).collect())
}

async fn run(
    command: &str,
    script: &str,
    questions: &[&Question],
    redis: &mut RedisConnection,
) -> Result<Vec<Value>, RedisError> {
    let mut call = redis::cmd(command);
    call.arg(script).arg(questions.len());
    for question in questions {
        call.arg(&question.key);
    }
    for Question { quota, .. } in questions {
        call.arg(quota.limit).arg(quota.period_micros()).arg(grain(*quota));
    }
    call.query_async(redis).await
}

fn taken(answer: &[Value; 3]) -> Result<Taken, RedisError> {
    match answer {
        [Value::Int(admitted), Value::Int(remaining), Value::Int(frees_in)] => Ok(Taken {
            admitted: *admitted == 1,
            remaining: u32::try_from(*remaining).unwrap_or(0),
            frees_in: Duration::from_micros(u64::try_from(*frees_in).unwrap_or(0)),
        }),
        [Value::BulkString(why), ..] => Err(no_answer(&String::from_utf8_lossy(why))),
        _ => Err(no_answer("something else")),
    }
}

fn no_answer(why: &str) -> RedisError {
    RedisError::from((
        ErrorKind::UnexpectedReturnType,
        "the script has not counted",
        why.to_owned(),
    ))
}

fn grain(quota: Quota) -> u64 {
    match quota.limit {
        0..=LARGEST_EXACT_LIMIT => 0,
        _ => (quota.period_micros() / GRAINS).max(1),
    }
}

#[cfg(test)]
mod tests;
