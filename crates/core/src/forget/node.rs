//! A node lets go of what is to be forgotten: its spool, its caches, its copy of the lists.
//!
//! The records in its spool are shipped as ever, and those of the forgotten are left out on the way
//! ([`request_logs::write`](crate::db::request_logs::write)); here the segments are given up, so that
//! nothing of them stays on the disk. Whatever does not succeed is tried again, and not confirmed before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::Guard;
use ipwarden_engine::network::Network;
use ipwarden_engine::spool::{SegmentId, SpoolError};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::tidy;
use crate::changes::Feed;
use crate::db::{Db, DbError, forgotten};
use crate::decisions::Decisions;
use crate::geo::Geo;
use crate::redis::{RedisPool, RedisPoolError};

/// How long a part of it may take before all is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it waits before that.
const PAUSE: Duration = Duration::from_secs(5);
/// How often it looks whether a segment is gone.
const LOOK: Duration = Duration::from_millis(100);

/// What a node has that may hold something of somebody.
pub struct Node {
    /// As in `nodes`.
    pub name: Arc<str>,
    /// The store.
    pub db: Db,
    /// The spool, and what is counted.
    pub guard: Arc<Guard>,
    /// Places.
    pub geo: Arc<Geo>,
    /// What was blocked.
    pub decisions: Arc<Decisions>,
    /// What is counted, in a fleet.
    pub redis: Option<RedisPool>,
    /// Says when there is something to forget, and what the copy of the lists is as good as.
    pub feed: Feed,
}

/// Why a node still holds something.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] DbError),
    #[error(transparent)]
    Redis(#[from] RedisPoolError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("the disk has no room for another segment of the spool")]
    NoRoom,
    #[error("{0} takes long")]
    Slow(&'static str),
}

/// Forgets what is to be forgotten, and confirms it, until `stop`.
///
/// This is an entry point: it reads the clock.
pub async fn follow(node: Node, stop: CancellationToken) {
    let mut wanted = node.feed.forget();
    let mut failing = false;
    loop {
        wanted.borrow_and_update();
        let forgotten = tokio::select! {
            () = stop.cancelled() => return,
            forgotten = node.forget_due() => forgotten,
        };
        if let Err(trouble) = &forgotten
            && !std::mem::replace(&mut failing, true)
        {
            tracing::warn!(%trouble, "not everything is forgotten yet; it is tried again");
        }
        failing = forgotten.is_err();
        let again = async {
            match failing {
                true => sleep(PAUSE).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = again => {}
            alive = wanted.changed() => if alive.is_err() { return },
        }
    }
}

impl Node {
    async fn forget_due(&self) -> Result<(), Trouble> {
        let name = self.name.clone();
        let due = self
            .db
            .run(move |conn| async move { forgotten::unconfirmed(conn, &name).await }.boxed())
            .await?;
        let Some(version) = due.iter().map(|row| row.version).max() else { return Ok(()) };
        self.empty_spool().await?;
        for row in &due {
            self.empty_caches(row.network).await?;
        }
        self.copied(version).await?;
        let ids: Vec<i64> = due.iter().map(|row| row.id).collect();
        let (name, now) = (self.name.clone(), now());
        let confirmed = self.db.transaction(move |conn| {
            async move {
                let at = conn.clock(now).await?;
                forgotten::confirm(conn, &ids, &name, at).await
            }
            .boxed()
        });
        confirmed.await?;
        tidy(&self.db, now).await?;
        tracing::info!(wishes = due.len(), "forgot what was to be forgotten");
        Ok(())
    }

    /// Returns when everything that was in the spool has been shipped, and is on the disk no more.
    async fn empty_spool(&self) -> Result<(), Trouble> {
        let spool = self.guard.spool().clone();
        let turned = tokio::task::spawn_blocking(move || spool.turn_over()).await;
        let old: HashSet<SegmentId> =
            turned.ok().flatten().ok_or(Trouble::NoRoom)?.into_iter().collect();
        let spool = self.guard.spool();
        let gone = async {
            while spool.segments().iter().any(|segment| old.contains(&segment.id)) {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, gone).await.map_err(|_| Trouble::Slow("shipping the log"))?;
        Ok(spool.remove_damaged()?)
    }

    /// What is kept in memory and in Redis; a network that is not known any more takes all with it that need
    /// not be kept.
    async fn empty_caches(&self, network: Option<Network>) -> Result<(), Trouble> {
        self.geo.forget(network).await?;
        self.decisions.forget_ended(network);
        if let Some(network) = network {
            let counted = self.guard.forget(network);
            if let Some(redis) = &self.redis {
                redis.delete(counted.into_iter()).await?;
            }
        }
        Ok(())
    }

    /// Returns when the copy of the lists on disk is of this version.
    async fn copied(&self, version: i64) -> Result<(), Trouble> {
        let mut status = self.feed.status();
        let copied = status.wait_for(|status| status.copied >= version);
        let waited = timeout(PATIENCE, copied).await;
        waited.map(drop).map_err(|_| Trouble::Slow("writing the copy of the lists"))
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(Moment::now().wall).unwrap_or_default()
}
