//! What this service signs, so that it knows it again: positions of pages, sessions.
//!
//! One key signs for all replicas of a store. It is made by the one that needs it first, and lies in the
//! table `secrets`: whoever can read the store can pose as anybody to it anyway.
//!
//! # Security
//! HMAC-SHA256, compared in constant time. What is signed for one purpose counts for no other.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use chrono::{DateTime, SubsecRound, Utc};
use futures_util::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::db::{Db, DbError, secrets};

/// The row of `secrets`.
const NAME: &str = "signing";
const BYTES: usize = 32;

/// Signs, as soon as the store has told the key.
#[derive(Default)]
pub struct Signer(ArcSwapOption<[u8; BYTES]>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// Asks the store for the key, and makes it if there is none.
    ///
    /// # Errors
    /// As any statement; then a key that was known before goes on to count.
    pub async fn load(&self, db: &Db, now: DateTime<Utc>) -> Result<(), DbError> {
        let known = db.run(|conn| secrets::find(conn, NAME).boxed()).await?;
        let secret = match known {
            Some(secret) => secret,
            None => make(db, now).await?,
        };
        let key = <[u8; BYTES]>::try_from(secret).map_err(|_| {
            DbError::Conflict(format!("the secret `{NAME}` is not of {BYTES} bytes"))
        })?;
        self.0.store(Some(Arc::new(key)));
        Ok(())
    }

    /// Whether the key is known.
    pub fn is_ready(&self) -> bool {
        self.0.load().is_some()
    }

    /// The signature of `text` for one purpose; `None` as long as the store has not told the key.
    pub fn sign(&self, purpose: &str, text: &[u8]) -> Option<[u8; 32]> {
        Some(self.mac(purpose, text)?.finalize().into_bytes().into())
    }

    /// Whether `signature` is that of `text` for this purpose, or at least its first 16 bytes are.
    pub fn verifies(&self, purpose: &str, text: &[u8], signature: &[u8]) -> bool {
        let mac = self.mac(purpose, text);
        signature.len() >= 16 && mac.is_some_and(|mac| mac.verify_truncated_left(signature).is_ok())
    }

    fn mac(&self, purpose: &str, text: &[u8]) -> Option<Hmac<Sha256>> {
        let key = self.0.load_full()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&*key).ok()?;
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(text);
        Some(mac)
    }
}

async fn make(db: &Db, now: DateTime<Utc>) -> Result<Vec<u8>, DbError> {
    let mut secret = vec![0; BYTES];
    getrandom::fill(&mut secret).expect("the kernel gives random bytes to every process");
    db.transaction(move |conn| {
        async move {
            let at = conn.clock(now).await?.trunc_subsecs(6);
            secrets::insert(conn, NAME, secret, at).await?;
            let made = secrets::find(conn, NAME).await?;
            made.ok_or_else(|| DbError::Conflict(format!("the secret `{NAME}` is gone again")))
        }
        .boxed()
    })
    .await
}
