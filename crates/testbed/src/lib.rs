//! Real servers for the tests of this workspace, private to the test process.
//!
//! [`redis()`] and [`postgres_database()`] start a server the first time a test of the process asks
//! and share it with the others; [`redis_private()`] and [`postgres_private()`] belong to one test,
//! which may stop, freeze and restart them, and so do the servers of [`redis_cluster()`] and
//! [`redis_sentinel()`]. All listen on a free port of 127.0.0.1 and keep their files in a temporary
//! directory. They end with the test process, even when it is killed.
//!
//! `IPWARDEN_TEST_REDIS` and `IPWARDEN_TEST_POSTGRES` name running servers to share instead, as
//! URLs without a database; `.ci/test` sets them, so that one of each serves all test binaries.
//!
//! What this deliberately does not do: skip. A test without its server gets an error that says how
//! to install it, and fails.

mod clock;
pub mod front;
pub mod fuzz;
pub mod geo;
pub mod haproxy;
mod pgbouncer;
mod ports;
mod postgres;
pub mod proxy;
mod redis;
pub mod report;
mod small_disk;
mod watched;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

pub use crate::pgbouncer::{PgBouncer, pgbouncer_private};
pub use crate::ports::lasting_port;
pub use crate::postgres::{
    Guest, POSTGRES_VARIABLE, PostgresServer, TestDatabase, postgres, postgres_database,
    postgres_private, postgres_private_with,
};
pub use crate::redis::{
    REDIS_VARIABLE, RedisCluster, RedisSentinel, RedisServer, redis, redis_cluster, redis_private,
    redis_sentinel,
};
pub use crate::small_disk::SmallDisk;

/// A name that no other test uses, now or in an earlier run: for keys, databases and buckets.
///
/// Lower-case letters, digits and `_` only; `prefix` comes first.
#[expect(clippy::disallowed_methods, reason = "uniqueness, not the passing of time")]
pub fn unique_name(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{prefix}_{}_{:x}_{next}", std::process::id(), nanos & 0xffff_ffff_ffff)
}
