//! Bouncers as operators see them: programs elsewhere that enforce our blocks.
//!
//! A bouncer's key is an API key of the role [`Role::Bouncer`], so it is stored, checked, announced and
//! revoked like every other ([`keys`]); here is what a bouncer has besides: a name that no other has,
//! and one row of `bouncers` for each address that its key is used from.

use std::collections::HashMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::clock::Moment;
use parking_lot::Mutex;
use serde::Serialize;

use crate::db::api_keys::{self, ApiKey};
use crate::db::bouncers::{self, Bouncer, Who};
use crate::db::{Conn, Db, DbError};
use crate::keys::{self, Role};
use crate::lists::{self, Actor};

/// Why no bouncer was added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// Another has this name.
    #[error("there is a bouncer called {0} already; delete it first, or take another name")]
    Taken(String),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] DbError),
}

/// A bouncer, or a key that no bouncer has used yet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    /// Of its key.
    pub id: String,
    /// Of its key, in its maker's words.
    pub name: String,
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// Which program it says it is.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Of that program.
    pub version: Option<String>,
    /// Who made the key.
    pub created_by: String,
    /// When, by the store's clock.
    pub created_at: DateTime<Utc>,
    /// When it last asked for decisions, by the store's clock.
    pub last_pull: Option<DateTime<Utc>>,
    /// How many decisions it applies, as it said itself.
    pub applied: Option<i64>,
}

/// Makes a key for a bouncer of this name. Returns its row, the key itself, which is nowhere else, and
/// the version to announce.
///
/// # Errors
/// [`AddError`].
pub async fn add(
    db: &Db,
    name: String,
    actor: Actor,
    now: DateTime<Utc>,
) -> Result<(ApiKey, String, i64), AddError> {
    let wanted = name.clone();
    let made = db
        .transaction(move |conn| {
            async move {
                let at = lists::lock(conn, now).await?;
                if live(conn).await?.iter().any(|key| key.name == name) {
                    return Ok(None);
                }
                keys::create_in(conn, name, Role::Bouncer, &actor, at).await.map(Some)
            }
            .boxed()
        })
        .await?;
    made.ok_or(AddError::Taken(wanted))
}

/// Ends the keys of the bouncer with this name or key id, and forgets where they were used. Returns the
/// keys, none if there is no such bouncer, and the version to announce.
///
/// # Errors
/// As any statement.
pub async fn delete(
    db: &Db,
    name_or_id: String,
    actor: Actor,
    now: DateTime<Utc>,
) -> Result<(Vec<ApiKey>, Option<i64>), DbError> {
    db.transaction(move |conn| {
        async move {
            let at = lists::lock(conn, now).await?;
            let (mut ended, mut version) = (live(conn).await?, None);
            ended.retain(|key| key.name == name_or_id || key.id == name_or_id);
            for key in &ended {
                version = keys::revoke_in(conn, &key.id, &actor, at).await?.or(version);
                bouncers::delete_of(conn, &key.id).await?;
            }
            Ok((ended, version))
        }
        .boxed()
    })
    .await
}

/// Every bouncer, the newest key first; a key that is used from several addresses is several.
///
/// # Errors
/// As any statement.
pub async fn list(db: &Db) -> Result<Vec<Listed>, DbError> {
    db.run(|conn| {
        async move {
            let (keys, seen) = (live(conn).await?, bouncers::all(conn).await?);
            let mut all = Vec::new();
            for key in keys {
                let mut used = seen.iter().filter(|bouncer| bouncer.key_id == key.id).peekable();
                if used.peek().is_none() {
                    all.push(listed(&key, None));
                }
                all.extend(used.map(|bouncer| listed(&key, Some(bouncer))));
            }
            Ok(all)
        }
        .boxed()
    })
    .await
}

fn listed(key: &ApiKey, bouncer: Option<&Bouncer>) -> Listed {
    Listed {
        id: key.id.clone(),
        name: key.name.clone(),
        address: bouncer.map(|bouncer| bouncer.address),
        kind: bouncer.and_then(|bouncer| bouncer.kind.clone()),
        version: bouncer.and_then(|bouncer| bouncer.version.clone()),
        created_by: key.created_by.clone(),
        created_at: key.created_at,
        last_pull: bouncer.map(|bouncer| bouncer.last_pull),
        applied: bouncer.and_then(|bouncer| bouncer.applied),
    }
}

/// When each bouncer that looks clients up was last noted: some ask for every request.
#[derive(Default)]
pub struct LookUps(Mutex<HashMap<(String, IpAddr), u64>>);

impl LookUps {
    /// Whether it is time to note this one again: once a minute.
    pub fn is_due(&self, who: &Who, now: Moment) -> bool {
        const MINUTE: u64 = 60_000_000;
        const MOST: usize = 10_000;
        let mut noted = self.0.lock();
        let name = (who.key_id.clone(), who.address);
        match noted.get(&name) {
            Some(at) if now.steady - at < MINUTE => return false,
            None if noted.len() >= MOST => noted.clear(),
            _ => {}
        }
        noted.insert(name, now.steady);
        true
    }
}

/// The keys of bouncers that count.
///
/// # Errors
/// As any statement.
pub async fn live(conn: &mut Conn) -> Result<Vec<ApiKey>, DbError> {
    let mut keys = api_keys::all(conn).await?;
    keys.retain(|key| key.role == Role::Bouncer.as_str() && key.revoked_at.is_none());
    Ok(keys)
}
