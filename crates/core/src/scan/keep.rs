//! Keeps the lease while something takes longer than it lasts.

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::still_ours;
use crate::db::leases::Lease;
use crate::db::{Db, DbError};

/// A lease is renewed so many times before it would end.
const RENEWALS: i32 = 6;

/// Does `work` and renews the lease meanwhile. Gives the work up when somebody else has the lease; a
/// renewal that fails otherwise is tried again, and the lease is checked when the work is written.
pub(super) async fn keeping<T>(
    db: &Db,
    lease: &Lease,
    now: DateTime<Utc>,
    work: impl Future<Output = Result<T, DbError>>,
) -> Result<T, DbError> {
    let (done, is_done) = oneshot::channel::<()>();
    let mut work = Box::pin(work);
    let mut renewing = Box::pin(renew_until(db, lease, now, is_done));
    tokio::select! {
        outcome = &mut work => {
            drop(done);
            // To its end: a transaction that is dropped would hold the row of the lease.
            renewing.await?;
            outcome
        }
        renewed = &mut renewing => match renewed {
            Err(lost) => Err(lost),
            Ok(()) => work.await,
        },
    }
}

/// Returns when `is_done` is closed, or when the lease is lost.
async fn renew_until(
    db: &Db,
    lease: &Lease,
    now: DateTime<Utc>,
    mut is_done: oneshot::Receiver<()>,
) -> Result<(), DbError> {
    let began = Instant::now();
    let pause = (lease.ttl / RENEWALS).to_std().unwrap_or_default();
    while timeout(pause, &mut is_done).await.is_err() {
        let now = now + TimeDelta::from_std(began.elapsed()).unwrap_or_default();
        match still_ours(db, lease, now).await {
            Ok(_) => {}
            Err(lost @ DbError::Conflict(_)) => return Err(lost),
            Err(error) => tracing::debug!(%error, "the lease of the scan was not renewed"),
        }
    }
    Ok(())
}
