//! Quotas as header fields: `RateLimit-Policy` and `RateLimit` of
//! draft-ietf-httpapi-ratelimit-headers, `Retry-After` of RFC 9110, 10.2.3.
//!
//! Values only, written into a caller's buffer; this crate knows no HTTP library. Every admitted answer
//! carries two of them, so they are put together by hand: by `format!` each costs 100 ns, so 20.

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
    push_name(out, name);
    out.push_str("q=");
    push_number(out, quota.limit.into());
    out.push_str(";w=");
    push_number(out, whole_seconds(quota.period));
}

/// Appends the value of `RateLimit`, such as `"anonymous";r=4;t=12`: what is left, and the
/// seconds until more.
pub fn push_limit_field(out: &mut String, name: &str, taken: &Taken) {
    push_name(out, name);
    out.push_str("r=");
    push_number(out, taken.remaining.into());
    out.push_str(";t=");
    push_number(out, taken.retry_after_seconds());
}

fn push_name(out: &mut String, name: &str) {
    out.push('"');
    out.push_str(name);
    out.push_str("\";");
}

/// Appends a number in decimal digits.
pub fn push_number(out: &mut String, number: u64) {
    if number >= 10 {
        push_number(out, number / 10);
    }
    out.push(char::from(b'0' + (number % 10) as u8));
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
    #[case(86_400_000_000, 86_400)]
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
