//! Who may, in memory: loaded at the start, or as soon as the store answers, and on every change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use ipwarden_engine::clock::Moment;
use tokio_util::sync::CancellationToken;

use super::{date, pause};
use crate::changes::Feed;
use crate::db::{Db, DbError};
use crate::keys::{self, FirstKeyError, Keys};
use crate::signing::Signer;
use crate::users::Users;

/// What callers are known by.
#[derive(Clone, Default)]
pub(super) struct Held {
    pub(super) keys: Arc<Keys>,
    pub(super) users: Arc<Users>,
    pub(super) signer: Arc<Signer>,
}

impl Held {
    async fn load(&self, db: &Db) -> Result<(), DbError> {
        self.keys.reload(db).await?;
        self.users.reload(db).await?;
        if !self.signer.is_ready() {
            self.signer.load(db, date(Moment::now())).await?;
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Opened {
    pub(super) first_admin_key: Option<PathBuf>,
    pub(super) held: Held,
    pub(super) keys_loaded: bool,
}

pub(super) async fn open_keys(
    db: &Db,
    data_dir: &Path,
    now: DateTime<Utc>,
) -> anyhow::Result<Opened> {
    let made = match keys::first_admin_key(db, data_dir, now).await {
        Ok(made) => made,
        // Without its store nobody can tell whether there are keys; that is asked again.
        Err(FirstKeyError::Store(error)) if error.is_unreachable() => None,
        Err(error) => return Err(error).context("the first admin key cannot be made"),
    };
    let held = Held::default();
    let loaded = held.load(db).await;
    if let Err(error) = &loaded {
        tracing::warn!(%error, "no API key is known until the store answers");
    }
    Ok(Opened { first_admin_key: made, held, keys_loaded: loaded.is_ok() })
}

/// Reloads the keys whenever they may have changed, until it worked. Those that could not be loaded at
/// the start do not wait for a change, and the first of them may not have been made.
pub(super) async fn follow_keys(
    held: Held,
    db: Db,
    feed: Feed,
    stop: CancellationToken,
    mut first_into: Option<PathBuf>,
) {
    let mut changed = feed.keys();
    loop {
        if first_into.is_none() {
            tokio::select! {
                () = stop.cancelled() => return,
                alive = changed.changed() => if alive.is_err() { return },
            }
        }
        let mut failing = false;
        while let Err(error) = load_keys(&held, &db, first_into.as_deref()).await {
            if !failing {
                tracing::warn!(%error, "the API keys cannot be loaded; the last ones count");
            }
            failing = true;
            if !pause(Duration::from_secs(1), &stop).await {
                return;
            }
        }
        first_into = None;
    }
}

async fn load_keys(held: &Held, db: &Db, first_into: Option<&Path>) -> Result<(), DbError> {
    if let Some(data_dir) = first_into {
        match keys::first_admin_key(db, data_dir, date(Moment::now())).await {
            Ok(Some(path)) => tracing::info!(path = %path.display(), "the first admin key is made"),
            Ok(None) => {}
            Err(FirstKeyError::Store(error)) => return Err(error),
            // Those that there are count all the same.
            Err(error) => tracing::error!(%error, "`ipctl key create` makes another"),
        }
    }
    held.load(db).await
}
