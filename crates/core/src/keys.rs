//! API keys: `ipw_<id>_<secret>`, shown once, stored as the SHA-256 of the secret under the id.
//!
//! Keys are checked against a snapshot in memory, like the lists; every change of them is a
//! `list_changes` of the list `keys`, upon which whoever holds a snapshot loads it again.
//!
//! # Security
//! A secret has 256 random bits, so a plain SHA-256 of it cannot be searched. Hashes are compared in
//! constant time, and an unknown id costs the same work as a wrong secret, so that neither time nor
//! answer tells which ids exist.

mod admin;
mod format;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::db::api_keys::{self, ApiKey};
use crate::db::list_changes::{self, List, Op};
use crate::db::{Conn, Db, DbError, audit_log};
use crate::lists::{self, Actor};

pub use self::admin::{ADMIN_KEY_FILE, FirstKeyError, first_admin_key};
use self::format::{Hash, Minted, mint, parse};

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A quota of its own, nothing else.
    User,
    /// Reads everything but keys.
    Reader,
    /// Reads, and changes lists and findings.
    Operator,
    /// All of that, and keys.
    Admin,
    /// Pulls decisions through the bouncer API, nothing else.
    Bouncer,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] =
        [Role::User, Role::Reader, Role::Operator, Role::Admin, Role::Bouncer];

    /// The word in the column, in answers and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Reader => "reader",
            Role::Operator => "operator",
            Role::Admin => "admin",
            Role::Bouncer => "bouncer",
        }
    }

    /// Whether this role includes what `needed` may: admin, operator, reader, user each include
    /// those after it; a bouncer is on nobody's ladder.
    pub fn includes(self, needed: Role) -> bool {
        let step = |role: Role| match role {
            Role::User => Some(0),
            Role::Reader => Some(1),
            Role::Operator => Some(2),
            Role::Admin => Some(3),
            Role::Bouncer => None,
        };
        match (step(self), step(needed)) {
            (Some(own), Some(needed)) => own >= needed,
            _ => self == needed,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no role is called `{0}`: write user, reader, operator, admin or bouncer")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Role, UnknownRole> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| UnknownRole(text.escape_debug().take(40).collect()))
    }
}

/// Who presented a key. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyIdentity {
    /// The public half of the key.
    pub id: Arc<str>,
    /// What the key is for, in its maker's words.
    pub name: Arc<str>,
    /// What its holder may do.
    pub role: Role,
}

impl KeyIdentity {
    /// Its name as an [`Actor`] and as an identity in the request log.
    pub fn actor_name(&self) -> String {
        format!("key:{}", self.id)
    }
}

/// The keys that count, in memory.
#[derive(Debug, Default)]
pub struct Keys(ArcSwap<HashMap<Arc<str>, Known>>);

#[derive(Clone, Debug)]
struct Known {
    hash: Hash,
    identity: KeyIdentity,
}

impl Keys {
    /// Loads the keys that have not been revoked.
    ///
    /// # Errors
    /// As any statement.
    pub async fn load(db: &Db) -> Result<Keys, DbError> {
        let keys = Keys::default();
        keys.reload(db).await?;
        Ok(keys)
    }

    /// Loads them again, after a change of the list `keys`.
    ///
    /// # Errors
    /// As any statement; then the keys stay as they were.
    pub async fn reload(&self, db: &Db) -> Result<(), DbError> {
        let rows = db.run(|conn| api_keys::all(conn).boxed()).await?;
        let known = rows.into_iter().filter_map(Known::from_row);
        self.0.store(Arc::new(known.map(|key| (key.identity.id.clone(), key)).collect()));
        Ok(())
    }

    /// Who holds the key `bearer` (what stands behind `Bearer ` in `Authorization`).
    pub fn verify(&self, bearer: &str) -> Option<KeyIdentity> {
        let (id, secret) = parse(bearer)?;
        let keys = self.0.load();
        let known = keys.get(id);
        let stored = known.map_or([0; 32], |known| known.hash);
        let is_right = stored.ct_eq(&format::hash(secret));
        known.filter(|_| bool::from(is_right)).map(|known| known.identity.clone())
    }

    /// Whether a key of this role counts.
    pub fn any_of(&self, role: Role) -> bool {
        self.0.load().values().any(|known| known.identity.role == role)
    }

    /// Whether a key that counted still does.
    pub fn holds(&self, identity: &KeyIdentity) -> bool {
        self.0.load().get(&identity.id).is_some_and(|known| known.identity == *identity)
    }

    /// How many keys count.
    pub fn len(&self) -> usize {
        self.0.load().len()
    }

    /// Whether no key counts.
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }
}

impl Known {
    /// `None` for a revoked key, and for one that a later version of the program made.
    fn from_row(row: ApiKey) -> Option<Known> {
        if row.revoked_at.is_some() {
            return None;
        }
        Some(Known {
            hash: row.secret_hash.try_into().ok()?,
            identity: KeyIdentity {
                id: row.id.into(),
                name: row.name.into(),
                role: row.role.parse().ok()?,
            },
        })
    }
}

/// Makes a key. Returns its row, the key itself, which is nowhere else, and the version to announce.
///
/// # Errors
/// As any statement.
pub async fn create(
    db: &Db,
    name: String,
    role: Role,
    actor: Actor,
    now: DateTime<Utc>,
) -> Result<(ApiKey, String, i64), DbError> {
    db.transaction(move |conn| {
        async move {
            let at = lists::lock(conn, now).await?;
            create_in(conn, name, role, &actor, at).await
        }
        .boxed()
    })
    .await
}

/// [`create`] within a transaction that holds the lock of the lists, at the store's time `at`.
///
/// # Errors
/// As any statement.
pub async fn create_in(
    conn: &mut Conn,
    name: String,
    role: Role,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<(ApiKey, String, i64), DbError> {
    let minted = mint();
    let key = minted.key.clone();
    let (row, version) = insert(conn, minted, name, role, actor, at).await?;
    Ok((row, key, version))
}

/// Ends a key at once; its row stays. Returns the version to announce, or `None` when there is none
/// of this id or it had been revoked before.
///
/// # Errors
/// As any statement.
pub async fn revoke(
    db: &Db,
    id: String,
    actor: Actor,
    now: DateTime<Utc>,
) -> Result<Option<i64>, DbError> {
    db.transaction(move |conn| {
        async move {
            let at = lists::lock(conn, now).await?;
            revoke_in(conn, &id, &actor, at).await
        }
        .boxed()
    })
    .await
}

/// [`revoke`] within a transaction that holds the lock of the lists, at the store's time `at`.
///
/// # Errors
/// As any statement.
pub async fn revoke_in(
    conn: &mut Conn,
    id: &str,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<Option<i64>, DbError> {
    let revoked = api_keys::revoke(conn, id, at).await?;
    let details = json!({ "revoked": revoked, "from": actor.address });
    audit_log::insert(conn, at, &actor.name, "revoke-key", id, details).await?;
    if !revoked {
        return Ok(None);
    }
    list_changes::record(conn, List::Keys, Op::Removed, &[None], at).await.map(Some)
}

/// Adds a key within a transaction that holds the lock of the lists, at the store's time `at`.
async fn insert(
    conn: &mut Conn,
    minted: Minted,
    name: String,
    role: Role,
    actor: &Actor,
    at: DateTime<Utc>,
) -> Result<(ApiKey, i64), DbError> {
    let row = ApiKey {
        id: minted.id,
        name,
        secret_hash: minted.hash.to_vec(),
        role: role.as_str().to_owned(),
        created_by: actor.name.clone(),
        created_at: at,
        revoked_at: None,
    };
    api_keys::insert(conn, row.clone()).await?;
    let details = json!({ "name": row.name, "role": role, "from": actor.address });
    audit_log::insert(conn, at, &actor.name, "create-key", &row.id, details).await?;
    let version = list_changes::record(conn, List::Keys, Op::Set, &[None], at).await?;
    Ok((row, version))
}
