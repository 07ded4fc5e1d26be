//! Sessions: what a browser shows instead of a password, for a while.
//!
//! A session is a text that this service signed: when it ends, whose it is, of which epoch. So every
//! replica knows it, and none keeps it. It counts on the listener it was opened on, and nowhere else.
//!
//! # Security
//! The text is no secret of its own but as good as a password until it ends: it belongs into a cookie that
//! scripts cannot read. What comes with a cookie has been sent by a browser, maybe for a page of
//! somebody else; so a change wants the session's token as well, which only our own pages know.

use chrono::{DateTime, TimeDelta, Utc};
use std::sync::Arc;
use subtle::ConstantTimeEq;

use crate::signing::Signer;
use crate::users::{Person, Users};

/// How long a session lasts.
pub const LASTS: TimeDelta = TimeDelta::hours(12);

/// Which listener a session was opened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Where everybody is.
    Public,
    /// Where operators are.
    Control,
}

impl Audience {
    fn purpose(self) -> &'static str {
        match self {
            Audience::Public => "session public",
            Audience::Control => "session control",
        }
    }

    /// The name of the cookie. Both listeners may have one name of a host, and cookies know no ports.
    pub fn cookie(self) -> &'static str {
        match self {
            Audience::Public => "ipwarden_session",
            Audience::Control => "ipwarden_control",
        }
    }
}

/// Opens sessions and knows them again.
#[derive(Clone, Debug)]
pub struct Sessions {
    signer: Arc<Signer>,
    users: Arc<Users>,
}

/// A session that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose it is.
    pub person: Person,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
    /// What a change has to show besides.
    pub token: String,
}

impl Sessions {
    /// Sessions of these people.
    pub fn new(signer: Arc<Signer>, users: Arc<Users>) -> Sessions {
        Sessions { signer, users }
    }

    /// Opens a session. Returns its text with it; `None` as long as the store has not told the key.
    pub fn open(
        &self,
        audience: Audience,
        person: Person,
        now: DateTime<Utc>,
    ) -> Option<(String, Session)> {
        let expires_at = now + LASTS;
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).expect("the kernel gives random bytes to every process");
        let signed = format!(
            "{}.{}.{}.{}",
            expires_at.timestamp(),
            person.epoch,
            hexadecimal(&nonce),
            person.name
        );
        let signature = self.signer.sign(audience.purpose(), signed.as_bytes())?;
        let text = format!("{signed}.{}", hexadecimal(&signature));
        let token = self.token(audience, &text)?;
        Some((text, Session { person, expires_at, token }))
    }

    /// The session of this text, if it counts on this listener at `now`.
    pub fn verify(&self, audience: Audience, text: &str, now: DateTime<Utc>) -> Option<Session> {
        let (signed, signature) = text.rsplit_once('.')?;
        let right = hexadecimal(&self.signer.sign(audience.purpose(), signed.as_bytes())?);
        if !bool::from(right.as_bytes().ct_eq(signature.as_bytes())) {
            return None;
        }
        // What is signed was written by `open`.
        let mut parts = signed.splitn(4, '.');
        let expires_at = DateTime::from_timestamp(parts.next()?.parse().ok()?, 0)?;
        let epoch: i64 = parts.next()?.parse().ok()?;
        let person = self.users.find(parts.nth(1)?)?;
        if person.epoch != epoch || expires_at <= now {
            return None;
        }
        Some(Session { person, expires_at, token: self.token(audience, text)? })
    }

    /// Whether `shown` is the token of a session.
    pub fn is_token(session: &Session, shown: &str) -> bool {
        session.token.as_bytes().ct_eq(shown.as_bytes()).into()
    }

    fn token(&self, audience: Audience, text: &str) -> Option<String> {
        let purpose = format!("token of {}", audience.purpose());
        self.signer.sign(&purpose, text.as_bytes()).map(|token| hexadecimal(&token))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
