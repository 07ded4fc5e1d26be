//! A decision as bouncers read it.

use ipwarden_core::decisions::{Decision, Scope};
use ipwarden_engine::network::Network;
use serde::Serialize;

const SECOND: i64 = 1_000_000;
/// What never ends is told as ten years, and told again long before: some bouncers keep nothing without
/// an end, and some take a number of seconds beyond 2^31 for nonsense.
const LONGEST: i64 = 10 * 365 * 86_400;

/// The fields that bouncers know.
#[derive(Serialize)]
struct Told<'a> {
    duration: String,
    id: i64,
    origin: &'a str,
    scenario: &'a str,
    scope: &'static str,
    r#type: &'static str,
    uuid: String,
    value: &'a Network,
}

/// Appends a decision in force as JSON.
pub(super) fn write(out: &mut Vec<u8>, decision: &Decision, store_now: i64) {
    let left = match decision.ends {
        None => LONGEST,
        Some(ends) => ends.saturating_sub(store_now).saturating_add(SECOND - 1) / SECOND,
    };
    append(out, decision, left);
}

/// Appends a decision that is not in force any more. Its duration means nothing, but has to be one.
pub(super) fn write_ended(out: &mut Vec<u8>, decision: &Decision) {
    append(out, decision, 1);
}

fn append(out: &mut Vec<u8>, decision: &Decision, seconds: i64) {
    let told = Told {
        duration: duration(seconds),
        id: decision.id,
        origin: &decision.cause.origin,
        scenario: decision.cause.scenario(),
        scope: Scope::of(&decision.value).as_str(),
        r#type: "ban",
        uuid: decision.uuid(),
        value: &decision.value,
    };
    serde_json::to_writer(out, &told).expect("texts and numbers are JSON, and memory is no disk");
}

/// Whole hours, minutes and seconds as Go writes them; at least a second.
fn duration(seconds: i64) -> String {
    let seconds = seconds.clamp(1, LONGEST);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ipwarden_core::decisions::Cause;

    use super::*;

    #[test]
    fn durations_are_whole_hours_minutes_and_seconds_of_at_least_one_second() {
        for (seconds, text) in [
            (-5, "1s"),
            (0, "1s"),
            (59, "59s"),
            (60, "1m0s"),
            (3_599, "59m59s"),
            (13_917, "3h51m57s"),
            (30 * 86_400, "720h0m0s"),
            (i64::MAX, "87600h0m0s"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_decision_has_the_fields_that_bouncers_know() {
        let cause = Cause { origin: "manual".into(), reason: "a \"reason\"\n".into() };
        let mut decision = Decision {
            id: 7,
            value: "192.0.2.0/24".parse().unwrap(),
            ends: Some(10_500_000),
            cause: Arc::new(cause),
        };
        let mut out = Vec::new();
        write(&mut out, &decision, 1_000_000);
        let uuid = decision.uuid();
        let expected = format!(
            r#"{{"duration":"10s","id":7,"origin":"manual","scenario":"a \"reason\"\n","scope":"Range","type":"ban","uuid":"{uuid}","value":"192.0.2.0/24"}}"#
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        decision.cause = Arc::new(Cause { origin: "scan".into(), reason: "".into() });
        let mut out = Vec::new();
        write_ended(&mut out, &decision);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(r#""scenario":"scan""#), "bouncers want a scenario: {text}");
    }
}
