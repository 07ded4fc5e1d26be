//! Asking a store that may have become unreachable by the connections that there are.
//!
//! A network that was parted and is whole again does not tell the connections from before: some go on
//! after a pause as long as the parting was, others lead nowhere for ever. The call limit of the store
//! is ten seconds, and the lists promise two. So whoever has waited for a moment asks again by a new
//! connection, again and again, while the first question waits on: a slow store answers that one.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use tokio::time::sleep;

use super::news::{self, Answer};
use crate::db::{Db, DbError};

/// A question is usually answered within milliseconds.
const MOMENT: Duration = Duration::from_millis(500);
/// How long a question on a new connection may take, with making that. With the moment before, and the
/// answer, less than the two seconds in which a change has to be live.
const ATTEMPT: Duration = Duration::from_secs(1);

/// What changed since `version`, as [`news::since`] tells.
pub(super) async fn since(
    db: &Db,
    version: i64,
    now: DateTime<Utc>,
) -> Result<Option<Answer>, DbError> {
    let patient = db.run(move |conn| news::since(conn, version, now).boxed());
    if db.is_sqlite() {
        return patient.await;
    }
    tokio::select! {
        answer = patient => answer,
        answer = again(db, version, now) => Ok(answer),
    }
}

/// Asks by new connections until one is answered.
async fn again(db: &Db, version: i64, now: DateTime<Utc>) -> Option<Answer> {
    loop {
        sleep(MOMENT).await;
        let Ok(apart) = db.apart().map(|db| db.with_timeout(ATTEMPT)) else { continue };
        let asked = apart.run(move |conn| news::since(conn, version, now).boxed());
        match asked.await {
            Ok(answer) => return answer,
            Err(error) => tracing::debug!(%error, "asking again"),
        }
    }
}
