//! A pass: one process tells another, through the proxy between them, that a request was counted and
//! recorded already.
//!
//! The gate issues one for each request that it admits; the guard of an application behind the same proxy
//! takes it instead of counting again. It holds for one request: it is signed (HMAC-SHA256, RFC 2104),
//! bound to the client's address, the method and the URI, ends after [`LIFE`], and is taken once by each
//! process.
//!
//! # Security
//! Whoever knows the secret can pass uncounted, and whoever can replay a pass in time to another process
//! than the one that took it passes once there. So a pass goes from the gate to the proxy to the application
//! and never to a client. What is wrong with a pass makes the request an ordinary one; it is never refused
//! for it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;

use crate::clock::Moment;
use crate::guard::QuotaState;
use crate::network::canonical;
use crate::quota::Quota;
use crate::rate_limit::Taken;
use crate::record::Reference;

mod replay;
#[cfg(test)]
mod tests;

use replay::{Once, Replay};

/// How long a pass holds: time enough for a proxy to connect to a slow application.
pub const LIFE: Duration = Duration::from_secs(30);
/// How far the clock of whoever issues may be ahead of the clock of whoever takes.
pub const SKEW: Duration = Duration::from_secs(5);

const VERSION: &str = "v1";
/// In front of what is signed, so that the secret signs nothing else by accident.
const DOMAIN: &[u8] = b"ipwarden pass\0";
/// Far more than any pass has.
const LONGEST: usize = 512;

/// Issues and takes passes under one secret.
pub struct Passes {
    key: Hmac<Sha256>,
    replay: Mutex<Replay>,
}

/// The request that a pass is for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The client's, as the resolver found it.
    pub address: IpAddr,
    /// As received.
    pub method: &'a str,
    /// Path and query, as received.
    pub uri: &'a str,
}

/// What was decided about the request: the pass carries it, so that the answer can tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Of the record.
    pub reference: Reference,
    /// Whether it was counted by identity.
    pub authenticated: bool,
    /// The quota it was counted against; `None` for an allowed client.
    pub quota: Option<QuotaState>,
}

/// Why a pass does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassError {
    /// It is none of ours: not of this form, signed with another secret, or for another request.
    #[error("it was not signed for this request")]
    Foreign,
    /// It is too late for it.
    #[error("it has ended")]
    Ended,
    /// It lasts longer than any pass, or is older than this process: a clock is wrong, or an earlier
    /// process may have taken it.
    #[error("it is not of this time: compare the clocks of both machines")]
    Untimely,
    /// It was taken before.
    #[error("it was taken before")]
    Taken,
    /// There is no room to remember that it is taken.
    #[error("too many passes are remembered")]
    Full,
}

impl Passes {
    /// Passes under a secret. Those issued before `now` are not taken.
    pub fn new(secret: &str, now: Moment) -> Passes {
        let key = Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
        Passes { key, replay: Mutex::new(Replay::new(now.wall)) }
    }

    /// A pass for a request that was admitted. `None` if the system has no random numbers.
    pub fn issue(&self, subject: &Subject<'_>, passed: &Passed, now: Moment) -> Option<String> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).ok()?;
        let ends = now.wall.saturating_add(micros(LIFE));
        Some(self.write(subject, passed, ends, u128::from_ne_bytes(nonce)))
    }

    fn write(&self, subject: &Subject<'_>, passed: &Passed, ends: i64, nonce: u128) -> String {
        let standing = if passed.authenticated { 'i' } else { 'a' };
        let mut text = format!("{VERSION}.{ends}.{nonce:032x}.{}.{standing}.", passed.reference);
        if let Some(QuotaState { policy, quota, taken }) = &passed.quota {
            let (period, frees_in) = (quota.period.as_micros(), taken.frees_in.as_micros());
            text += &format!("{};{period};{};{frees_in};{policy}", quota.limit, taken.remaining);
        }
        let code = self.code(&text, subject).finalize().into_bytes();
        text.push('.');
        code.iter().for_each(|byte| text += &format!("{byte:02x}"));
        text
    }

    /// Takes a pass for a request. What it tells was true when it was issued.
    ///
    /// # Errors
    /// Why it does not count; the request is to be counted then.
    pub fn take(
        &self,
        pass: &[u8],
        subject: &Subject<'_>,
        now: Moment,
    ) -> Result<Passed, PassError> {
        let (signed, code) = split(pass).ok_or(PassError::Foreign)?;
        // In constant time.
        self.code(signed, subject).verify_slice(&code).map_err(|_| PassError::Foreign)?;
        let Content { ends, nonce, passed } = read(signed).ok_or(PassError::Foreign)?;
        match self.replay.lock().take(nonce, ends, now.wall) {
            Once::First => Ok(passed),
            Once::Ended => Err(PassError::Ended),
            Once::Untimely => Err(PassError::Untimely),
            Once::Again => Err(PassError::Taken),
            Once::Full => Err(PassError::Full),
        }
    }

    /// What is signed: no part can hold the NUL that divides it from the next.
    fn code(&self, text: &str, subject: &Subject<'_>) -> Hmac<Sha256> {
        let address = canonical(subject.address).to_string();
        let parts = [text, &address, subject.method, subject.uri];
        let mut code = self.key.clone();
        code.update(DOMAIN);
        for part in parts {
            code.update(part.as_bytes());
            code.update(b"\0");
        }
        code
    }
}

struct Content {
    ends: i64,
    nonce: u128,
    passed: Passed,
}

/// The signed part and the code.
fn split(pass: &[u8]) -> Option<(&str, [u8; 32])> {
    let pass = std::str::from_utf8(pass).ok().filter(|pass| pass.len() <= LONGEST)?;
    let (signed, hex) = pass.rsplit_once('.')?;
    let mut code = [0; 32];
    let digits = hex.as_bytes().chunks_exact(2);
    if hex.len() != 64 || !hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, pair) in code.iter_mut().zip(digits) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some((signed, code))
}

/// What was written by [`Passes::write`].
fn read(signed: &str) -> Option<Content> {
    let mut parts = signed.splitn(6, '.');
    let mut next = || parts.next();
    let (VERSION, ends, nonce) = (next()?, next()?, next()?) else { return None };
    let (reference, standing, quota) = (next()?, next()?, next()?);
    Some(Content {
        ends: ends.parse().ok()?,
        nonce: u128::from_str_radix(nonce, 16).ok()?,
        passed: Passed {
            reference: reference.parse().ok()?,
            authenticated: standing == "i",
            quota: match quota {
                "" => None,
                text => Some(read_quota(text)?),
            },
        },
    })
}

fn read_quota(text: &str) -> Option<QuotaState> {
    let mut parts = text.splitn(5, ';');
    let mut next = || parts.next();
    let (limit, period, remaining, frees_in) = (next()?, next()?, next()?, next()?);
    let period = Duration::from_micros(period.parse().ok()?);
    let taken = Taken {
        admitted: true,
        remaining: remaining.parse().ok()?,
        frees_in: Duration::from_micros(frees_in.parse().ok()?),
    };
    let policy = Cow::Owned(next()?.to_owned());
    Some(QuotaState { policy, quota: Quota::new(limit.parse().ok()?, period), taken })
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
