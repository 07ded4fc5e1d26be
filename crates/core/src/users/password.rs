//! Passwords: Argon2id (RFC 9106), with the parameters that OWASP recommends.
//!
//! # Security
//! A name that nobody has costs the same work as a wrong password. Each takes 19 MiB and some
//! milliseconds of a core: at most two are worked on at once, on threads where no request waits.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;

/// The shortest password, in characters.
pub const SHORTEST: usize = 12;
/// The longest password, in bytes: more only costs time.
pub const LONGEST: usize = 1_024;
/// Passwords that are worked on at once.
const AT_ONCE: usize = 2;
/// How long one may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of a password that nobody has, for names that nobody has.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$aXB3YXJkZW4tbm9ib2R5$\
                      AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A text is no password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a password has at least {SHORTEST} characters and at most {LONGEST} bytes")]
pub struct UnfitPassword;

/// Too many passwords wait to be worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being looked at")]
pub struct Busy;

/// Says whether a text may become somebody's password.
///
/// # Errors
/// [`UnfitPassword`].
pub fn fit_password(text: &str) -> Result<(), UnfitPassword> {
    let fits = text.chars().count() >= SHORTEST && text.len() <= LONGEST;
    if fits { Ok(()) } else { Err(UnfitPassword) }
}

/// Works on passwords.
#[derive(Clone, Debug)]
pub struct Passwords(Arc<Semaphore>);

impl Default for Passwords {
    fn default() -> Passwords {
        Passwords(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Passwords {
    /// What is stored of a password.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn hash(&self, password: String) -> Result<String, Busy> {
        self.work(move || {
            let hash = argon2().hash_password(password.as_bytes());
            hash.expect("these parameters take every password").to_string()
        })
        .await
    }

    /// Whether `password` is the one of which `stored` is stored; `None` for a name that nobody has.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, Busy> {
        self.work(move || {
            let text = stored.as_deref().unwrap_or(NOBODY);
            let is_right = PasswordHash::new(text)
                .is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok());
            is_right && stored.is_some()
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let turn = tokio::time::timeout(PATIENCE, self.0.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Busy)?.map_err(|_| Busy)?;
        // The turn is over when the work is, though nobody may wait for it any more.
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|_| Busy)
    }
}

fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_again_and_no_other_is() {
        let passwords = Passwords::default();
        let stored = passwords.hash("correct horse battery".to_owned()).await.unwrap();
        assert!(!stored.contains("horse"));
        let other = passwords.hash("correct horse battery".to_owned()).await.unwrap();
        assert_ne!(stored, other, "each has a salt of its own");
        let verify = |text: &str, stored| passwords.verify(text.to_owned(), stored);
        assert!(verify("correct horse battery", Some(stored.clone())).await.unwrap());
        assert!(!verify("correct horse batterz", Some(stored)).await.unwrap());
        assert!(!verify("correct horse battery", None).await.unwrap());
        assert!(!verify("", Some(String::new())).await.unwrap());
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_costs_the_same_work() {
        let stored = Passwords::default().hash("correct horse battery".to_owned()).await.unwrap();
        let (stored, nobody) =
            (PasswordHash::new(&stored).unwrap(), PasswordHash::new(NOBODY).unwrap());
        assert_eq!(stored.algorithm, nobody.algorithm);
        assert_eq!(stored.params, nobody.params);
        assert_eq!(stored.hash.map(|hash| hash.len()), nobody.hash.map(|hash| hash.len()));
    }

    #[test]
    fn a_password_has_a_length_that_helps() {
        assert_eq!(fit_password(&"\u{e4}".repeat(11)), Err(UnfitPassword));
        assert_eq!(fit_password(&"\u{e4}".repeat(12)), Ok(()));
        assert_eq!(fit_password(&"x".repeat(1_024)), Ok(()));
        assert_eq!(fit_password(&"x".repeat(1_025)), Err(UnfitPassword));
    }
}
