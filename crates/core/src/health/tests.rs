use super::*;

const SECOND: u64 = 1_000_000;

fn at(seconds: u64) -> Moment {
    Moment { wall: i64::try_from(seconds * SECOND).unwrap(), steady: seconds * SECOND }
}

fn total(lost: u64, unresolved: u64) -> Totals {
    Totals { lost, unresolved, ..Totals::default() }
}

#[test]
fn what_went_wrong_is_trouble_for_ten_minutes() {
    let watch = Watch::default();
    assert_eq!(
        watch.lately(total(2, 3), at(1)),
        total(2, 3),
        "since the start, which was just now"
    );
    for look in 0..=300 {
        // At 1,000 s seven records are lost.
        let lost = if look * 10 >= 1_000 { 9 } else { 2 };
        watch.note(total(lost, 3), at(look * 10));
        let grown = watch.lately(total(lost, 3), at(look * 10)).lost;
        let expected = match look * 10 {
            0..600 => 2,
            1_000..1_600 => 7,
            _ => 0,
        };
        assert_eq!(grown, expected, "after {} s", look * 10);
    }
}

#[test]
fn the_lists_are_degraded_until_the_store_answers() {
    let status = |source, trouble: Option<&str>| Status {
        source,
        version: 7,
        blocked: 2,
        allowed: 1,
        copied: 1,
        confirmed_at: None,
        trouble: trouble.map(str::to_owned),
    };
    for (status, degraded, says) in [
        (status(Source::None, Some("refused")), true, "none; the store does not answer"),
        (status(Source::Disk, Some("refused")), true, "from the disk"),
        (status(Source::Store, Some("refused")), true, "database_url"),
        (status(Source::Store, None), false, "version 7, 2 blocked, 1 allowed"),
    ] {
        let condition = lists(&status);
        assert_eq!(condition.degraded, degraded, "{condition:?}");
        assert!(condition.text.contains(says) && !condition.text.contains("refused"));
    }
}

#[test]
fn quotas_are_degraded_while_each_replica_gives_its_share() {
    let state = |breaker| {
        let mut state = LimiterState::default();
        (state.breaker, state.live_replicas) = (breaker, 4);
        state
    };
    for (breaker, in_one_process, degraded, says) in [
        (Some(BreakerState::Closed), false, false, "counted in Redis"),
        (Some(BreakerState::Open), false, true, "1 of 4; does it run"),
        (Some(BreakerState::HalfOpen), false, true, "1 of 4; does it run"),
        (None, false, true, "set redis_url"),
        (None, true, false, "counted in this process"),
    ] {
        let condition = quotas(&state(breaker), in_one_process);
        assert_eq!(condition.degraded, degraded, "{condition:?}");
        assert!(condition.text.contains(says), "{condition:?}");
    }
}

#[test]
fn the_request_log_is_degraded_when_records_wait_or_are_lost() {
    let (fine, now) = (SpoolStatus::default(), at(1_000));
    let stalled = |why| SpoolStatus { stalled: Some(why), ..fine };
    let waiting_since = |seconds: i64| Some(seconds * 1_000_000);
    let (works, fails) =
        (RecorderStatus::default(), RecorderStatus { failing: true, ..RecorderStatus::default() });
    for (spool, recorder, lost, says) in [
        (fine, works, 0, None),
        (stalled(ErrorKind::StorageFull), works, 0, Some("disk of data_dir is full")),
        (stalled(ErrorKind::PermissionDenied), works, 0, Some("(permission denied)")),
        (fine, fails, 0, Some("the store takes no records")),
        (fine, works, 3, Some("3 records were lost in the last 10 minutes")),
        (SpoolStatus { oldest: waiting_since(999), ..fine }, works, 0, None),
        (SpoolStatus { oldest: waiting_since(900), ..fine }, works, 0, Some("waited for 100 s")),
        // Much of a small spool are segments made ahead.
        (SpoolStatus { bytes: 95, oldest: waiting_since(999), ..fine }, works, 0, None),
        (SpoolStatus { bytes: 79, oldest: waiting_since(980), ..fine }, works, 0, None),
        (
            SpoolStatus { bytes: 80, oldest: waiting_since(980), ..fine },
            fails,
            0,
            Some("80 % full"),
        ),
    ] {
        let condition = request_log(&spool, recorder, total(lost, 0), 100, now);
        assert_eq!(condition.degraded, says.is_some(), "{condition:?}");
        assert!(condition.text.contains(says.unwrap_or("0 shipped")), "{condition:?}");
    }
    let condition = request_log(&fine, fails, total(3, 0), 100, now);
    assert!(
        condition.text.contains("no records") && condition.text.contains("3 records were lost")
    );
    let refused = RecorderStatus { refused: 2, ..RecorderStatus::default() };
    let condition = request_log(&fine, refused, total(0, 0), 100, now);
    assert!(condition.degraded && condition.text.contains("the records of 2 segments"));
    let unread = Totals { unread: 1, ..Totals::default() };
    let condition = request_log(&fine, works, unread, 100, now);
    assert!(condition.degraded && condition.text.contains("1 segments could not be read whole"));
}

#[test]
fn places_and_clients_are_degraded_by_what_cannot_be_read() {
    assert!(!places(0, 0).degraded, "nobody has to have files");
    assert!(!places(2, 0).degraded);
    assert!(places(2, 1).degraded && places(0, 1).text.contains("1 files cannot be used"));
    assert!(!clients(0, 5).degraded);
    assert!(clients(4, 5).degraded && clients(4, 5).text.contains("client_ip.header"));
}

#[test]
fn the_scan_is_degraded_when_none_has_run_for_two_hours() {
    let date = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let finished = date("2026-01-01T10:00:00Z");
    for (last, now, degraded) in [
        (Some(Some(finished)), "2026-01-01T11:59:59Z", false),
        (Some(Some(finished)), "2026-01-01T12:00:00Z", true),
        (Some(None), "2026-01-01T10:00:00Z", true),
        (None, "2026-01-01T10:00:00Z", true),
    ] {
        assert_eq!(scan(last, date(now)).degraded, degraded, "{last:?} at {now}");
    }
}
