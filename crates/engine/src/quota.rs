//! How many requests who may make: quotas, the policies that pick one, and what they count by.
//!
//! A client has exactly one quota per request: by identity if it has one, by network otherwise,
//! never both. Counting is the part of [`crate::rate_limit`]; nothing here keeps any state.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::network::Network;

mod policy;
#[cfg(test)]
mod tests;

pub use policy::{Applied, Policies, Policy, PolicyError, Standing};

/// The longest period of a quota: one day.
pub const LONGEST_PERIOD: Duration = Duration::from_secs(86_400);

/// So many requests in so much time, written `5/1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Requests that are admitted in any span of one period; at least 1.
    pub limit: u32,
    /// The length of the window. Texts hold whole seconds up to one day; code may use less.
    pub period: Duration,
}

/// What admitted requests are counted by, besides the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket<'a> {
    /// A client without an identity: its IPv4 address or its IPv6 network.
    Network(Network),
    /// Who the client has proved to be, wherever it comes from.
    Identity(&'a str),
}

/// Why a text is no quota. The messages say what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// There is no `/` between limit and period.
    #[error("`{0}` is not a quota: write LIMIT/PERIOD, for example `5/1m`")]
    NoPeriod(String),
    /// The limit is no number from 1 to 4294967295.
    #[error("`{0}` is not a limit: write a whole number from 1 to 4294967295, as in `5/1m`")]
    Limit(String),
    /// The period is no number with a unit, or not within a second and a day.
    #[error(
        "`{0}` is not a period: write a whole number and s, m, h or d, from 1s to 1d, as in `5/1m`"
    )]
    Period(String),
}

impl Quota {
    /// The default of clients without an identity: 5 per minute.
    pub const ANONYMOUS: Quota = Quota::new(5, Duration::from_secs(60));
    /// The default of clients with an identity: 10 per minute.
    pub const AUTHENTICATED: Quota = Quota::new(10, Duration::from_secs(60));
    /// What a trusted proxy may send in its own name, and who hides behind it: 600 per minute.
    pub const PROXY: Quota = Quota::new(600, Duration::from_secs(60));

    /// So many requests per period.
    #[inline]
    pub const fn new(limit: u32, period: Duration) -> Quota {
        Quota { limit, period }
    }

    /// The part of this quota that one of `live_replicas` may admit on its own.
    #[inline]
    pub fn share(self, live_replicas: u32) -> Quota {
        match live_replicas {
            0 | 1 => self,
            live => Quota { limit: (self.limit / live).max(1), ..self },
        }
    }

    /// The period in microseconds: at least one, and so few that sums with moments fit.
    #[inline]
    pub(crate) fn period_micros(self) -> u64 {
        let whole = self.period.as_secs().min(1 << 40) * 1_000_000;
        (whole + u64::from(self.period.subsec_micros())).max(1)
    }

    /// Whether it admits fewer requests in the long run, or as many in smaller helpings.
    fn is_stricter_than(self, other: Quota) -> bool {
        let own_rate = u128::from(self.limit) * other.period.as_micros();
        let other_rate = u128::from(other.limit) * self.period.as_micros();
        (own_rate, self.limit) < (other_rate, other.limit)
    }
}

impl FromStr for Quota {
    type Err = QuotaError;

    fn from_str(text: &str) -> Result<Quota, QuotaError> {
        let (limit_text, period_text) =
            text.split_once('/').ok_or_else(|| QuotaError::NoPeriod(text.to_owned()))?;
        let limit = whole_number(limit_text)
            .and_then(|limit| u32::try_from(limit).ok())
            .filter(|limit| *limit > 0)
            .ok_or_else(|| QuotaError::Limit(limit_text.to_owned()))?;
        let period =
            parse_period(period_text).ok_or_else(|| QuotaError::Period(period_text.to_owned()))?;
        Ok(Quota { limit, period })
    }
}

fn parse_period(text: &str) -> Option<Duration> {
    let unit_at = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at))?;
    let (digits, unit) = text.split_at(unit_at);
    let seconds_per_unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let period = Duration::from_secs(whole_number(digits)?.checked_mul(seconds_per_unit)?);
    (!period.is_zero() && period <= LONGEST_PERIOD).then_some(period)
}

/// Digits only: `u64::from_str` would also take a sign.
fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.period.as_secs();
        write!(f, "{}/", self.limit)?;
        if self.period.subsec_nanos() != 0 || seconds == 0 {
            return write!(f, "{:?}", self.period);
        }
        match seconds {
            _ if seconds.is_multiple_of(86_400) => write!(f, "{}d", seconds / 86_400),
            _ if seconds.is_multiple_of(3_600) => write!(f, "{}h", seconds / 3_600),
            _ if seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
            _ => write!(f, "{seconds}s"),
        }
    }
}

impl Serialize for Quota {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quota, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
