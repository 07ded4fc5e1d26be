//! Quotas as header fields: `RateLimit-Policy` and `RateLimit` of
//! draft-ietf-httpapi-ratelimit-headers, `Retry-After` of RFC 9110, 10.2.3.
//!
//! Values only, written into a caller's buffer; this crate knows no HTTP library.

use std::fmt::Write;

use super::Taken;
use crate::quota::Quota;

impl Taken {
    /// Whole seconds until there is more, rounded up, at least 1: the `t` of `RateLimit` and the
    /// value of `Retry-After`, so that neither is earlier than the other.
    pub fn retry_after_seconds(&self) -> u64 {
        whole_seconds(self.frees_in)
    }
}

/// Appends the value of `RateLimit-Policy`, such as `"anonymous";q=5;w=60`.
///
/// `name` holds neither `"` nor `\`: [`crate::quota::Policies`] has made sure.
pub fn push_policy_field(out: &mut String, name: &str, quota: Quota) {
    let window = whole_seconds(quota.period);
    let _infallible = write!(out, "\"{name}\";q={};w={window}", quota.limit);
}

/// Appends the value of `RateLimit`, such as `"anonymous";r=4;t=12`: what is left, and the
/// seconds until more.
pub fn push_limit_field(out: &mut String, name: &str, taken: &Taken) {
    let (remaining, seconds) = (taken.remaining, taken.retry_after_seconds());
    let _infallible = write!(out, "\"{name}\";r={remaining};t={seconds}");
}

fn whole_seconds(span: std::time::Duration) -> u64 {
    (span.as_secs() + u64::from(span.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, 1)]
    #[case(1, 1)]
    #[case(1_000_000, 1)]
    #[case(1_000_001, 2)]
    #[case(11_999_999, 12)]
    #[case(12_000_000, 12)]
    #[case(60_000_000, 60)]
    fn retry_after_is_whole_seconds_rounded_up_and_at_least_one(
        #[case] micros: u64,
        #[case] seconds: u64,
    ) {
        let taken =
            Taken { admitted: false, remaining: 0, frees_in: Duration::from_micros(micros) };
        assert_eq!(taken.retry_after_seconds(), seconds);
        let mut field = String::new();
        push_limit_field(&mut field, "anonymous", &taken);
        assert_eq!(field, format!("\"anonymous\";r=0;t={seconds}"));
    }

    #[test]
    fn the_policy_field_names_quota_and_window() {
        let mut field = String::from("kept, ");
        push_policy_field(&mut field, "anonymous", Quota::ANONYMOUS);
        assert_eq!(field, "kept, \"anonymous\";q=5;w=60");
    }
}
