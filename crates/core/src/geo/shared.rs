//! The cache of places that all replicas share, in Redis.
//!
//! A convenience and never a need: whatever goes wrong here costs at most [`PATIENCE`] once in
//! [`PAUSE_SECONDS`], is counted, and leaves the file to answer. What is found in Redis is
//! believed no more than what is found in a file: it is cleaned again, and one that cannot be read,
//! is of another build or is older than a day is a miss.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use deadpool_redis::redis::{self, Cmd, FromRedisValue};
use serde::{Deserialize, Serialize};

use super::place::{CountryCode, Place, clean_city};
use super::set::BuildId;
use super::{CACHED_SECONDS, Cached};
use crate::redis::{RedisPool, RedisPoolError};

/// The longest that a batch waits for Redis, each way.
const PATIENCE: Duration = Duration::from_millis(250);

/// After a failure Redis is left alone for this long.
const PAUSE_SECONDS: i64 = 5;

/// Places by address, for all replicas.
pub(super) struct SharedCache {
    pool: RedisPool,
    /// Seconds since the Unix epoch before which Redis is not asked again.
    resumes: AtomicI64,
    failures: AtomicU64,
}

impl SharedCache {
    pub(super) fn new(pool: RedisPool) -> SharedCache {
        SharedCache { pool, resumes: AtomicI64::new(i64::MIN), failures: AtomicU64::new(0) }
    }

    /// What Redis knows of `addresses`, in their order, in one round trip.
    pub(super) async fn get(
        &self,
        addresses: &[IpAddr],
        build: BuildId,
        now: i64,
    ) -> Vec<Option<Cached>> {
        let commands = addresses.iter().map(|&address| {
            let mut get = redis::cmd("GET");
            get.arg(key(address));
            get
        });
        let answers = self.send::<Option<String>>(commands.collect(), now).await;
        let mut found: Vec<Option<Cached>> = answers
            .into_iter()
            .flatten()
            .map(|answer| decode(&answer.ok()??).filter(|cached| cached.is_fresh(build, now)))
            .collect();
        found.resize(addresses.len(), None);
        found
    }

    /// Tells the other replicas, in one round trip.
    pub(super) async fn put(&self, entries: &[(IpAddr, Cached)], now: i64) {
        let commands = entries.iter().map(|(address, cached)| {
            let mut set = redis::cmd("SET");
            set.arg(key(*address)).arg(encode(cached)).arg("EX").arg(CACHED_SECONDS);
            set
        });
        self.send::<()>(commands.collect(), now).await;
    }

    /// Forgets these for all replicas.
    pub(super) async fn forget(
        &self,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Result<(), RedisPoolError> {
        self.pool.delete(addresses.map(key)).await
    }

    /// Round trips that failed since the start.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The answers, or `None` if Redis is away.
    async fn send<T: FromRedisValue>(
        &self,
        commands: Vec<Cmd>,
        now: i64,
    ) -> Option<Vec<redis::RedisResult<T>>> {
        let resumes = self.resumes.load(Ordering::Relaxed);
        // A clock that was set back must not silence the cache for long.
        if commands.is_empty() || (resumes.saturating_sub(PAUSE_SECONDS)..resumes).contains(&now) {
            return None;
        }
        let error = match tokio::time::timeout(PATIENCE, self.pool.each(commands)).await {
            Ok(Ok(answers)) => {
                if self.resumes.swap(i64::MIN, Ordering::Relaxed) != i64::MIN {
                    tracing::info!("places are shared through Redis again");
                }
                return Some(answers);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        self.failures.fetch_add(1, Ordering::Relaxed);
        if self.resumes.swap(now + PAUSE_SECONDS, Ordering::Relaxed) == i64::MIN {
            tracing::warn!(error, "places are not shared through Redis for now");
        }
        None
    }
}

/// The key of a canonical address.
fn key(address: IpAddr) -> String {
    format!("ipwarden:geo:v1:{address}")
}

/// An entry as it stands in Redis.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    /// The files that answered.
    build: Cow<'a, str>,
    /// When they were asked, in seconds since the Unix epoch.
    at: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    country: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    city: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    asn: Option<u32>,
}

fn encode(cached: &Cached) -> String {
    let place = &cached.place;
    let stored = Stored {
        build: cached.build.to_string().into(),
        at: cached.asked,
        country: place.country.as_ref().map(|code| code.as_str().into()),
        city: place.city.as_deref().map(Cow::from),
        asn: place.asn,
    };
    serde_json::to_string(&stored).expect("text and numbers are JSON")
}

fn decode(text: &str) -> Option<Cached> {
    let stored: Stored<'_> = serde_json::from_str(text).ok()?;
    Some(Cached {
        build: stored.build.parse().ok()?,
        asked: stored.at,
        place: Place {
            country: stored.country.and_then(|code| CountryCode::parse(&code)),
            city: stored.city.and_then(|city| clean_city(&city)),
            asn: stored.asn,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_the_way_through_redis() {
        let place = Place {
            country: CountryCode::parse("DE"),
            city: Some("Nürn\"berg".into()),
            asn: Some(64496),
        };
        for place in [place, Place::default()] {
            let cached = Cached { place, asked: 1_700_000_000, build: BuildId::default() };
            assert_eq!(decode(&encode(&cached)), Some(cached));
        }
    }

    #[test]
    fn what_stands_in_redis_is_not_believed() {
        for bad in ["", "null", "[]", "{}", r#"{"build":"x","at":1}"#, "\u{0}"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
        let odd = r#"{"build":"0","at":1,"country":"<b>","city":"\u001b[2J\u0000","asn":1}"#;
        let place = decode(odd).expect("its shape is right").place;
        assert_eq!((place.country, place.city.as_deref()), (None, Some("[2J")));
    }
}
