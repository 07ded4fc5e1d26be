//! A limiter with its clock, in process or on Redis.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;
use ipwarden_engine::quota::{Bucket, Quota};
use ipwarden_engine::rate_limit::{Limiter, LocalOptions, RedisOptions, Taken, WorkerLimiter};

/// Where the requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Process,
    Redis,
}

pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) limiter: Limiter,
    pub(crate) worker: WorkerLimiter,
    /// Unique, because all tests share one Redis.
    pub(crate) policy: String,
    now: Cell<Moment>,
}

/// Patient: a machine that is busy with other tests is not a Redis that fails.
pub(crate) fn patient() -> RedisOptions {
    RedisOptions {
        patience: Duration::from_secs(10),
        silence: Duration::from_secs(20),
        connect_patience: Duration::from_secs(10),
        ..RedisOptions::default()
    }
}

pub(crate) fn on_redis(url: &str, options: RedisOptions) -> Limiter {
    Limiter::redis(url.parse().expect("the testbed's URL"), options)
}

impl Bench {
    pub(crate) fn new(store: Store) -> Bench {
        let limiter = match store {
            Store::Process => Limiter::local(LocalOptions::default()),
            Store::Redis => on_redis(ipwarden_testbed::redis().expect("a Redis").url(), patient()),
        };
        Bench {
            store,
            worker: limiter.worker(),
            limiter,
            policy: ipwarden_testbed::unique_name("limiter"),
            now: Cell::new(Moment::now()),
        }
    }

    /// The present: an argument in process, the machine's where Redis reads its own clock.
    pub(crate) fn now(&self) -> Moment {
        match self.store {
            Store::Process => self.now.get(),
            Store::Redis => Moment::now(),
        }
    }

    /// A period that a case can let pass.
    pub(crate) fn short_period(&self) -> Duration {
        match self.store {
            Store::Process => Duration::from_secs(60),
            Store::Redis => Duration::from_millis(300),
        }
    }

    pub(crate) async fn take(&self, bucket: Bucket<'_>, quota: Quota) -> Taken {
        self.worker.take(&self.policy, bucket, quota, self.now()).await
    }

    /// Lets this time pass for the store.
    pub(crate) async fn pass(&self, span: Duration) {
        match self.store {
            Store::Process => self.now.set(later(self.now.get(), span)),
            // Redis measures by its own clock, which no test can turn.
            Store::Redis => tokio::time::sleep(span).await,
        }
    }
}

pub(crate) fn later(now: Moment, span: Duration) -> Moment {
    let micros = span.as_micros() as u64;
    Moment { wall: now.wall + micros as i64, steady: now.steady + micros }
}

pub(crate) fn address(text: &str) -> Bucket<'static> {
    let address: IpAddr = text.parse().expect("an address");
    Bucket::Network(Network::of_client(address, 64))
}

pub(crate) fn numbered(number: u32) -> Bucket<'static> {
    Bucket::Network(Network::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes())))
}

pub(crate) fn per_minute(limit: u32) -> Quota {
    Quota::new(limit, Duration::from_secs(60))
}
