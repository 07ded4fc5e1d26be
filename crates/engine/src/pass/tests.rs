use std::time::Duration;

use rstest::rstest;

use super::replay::{Once, Replay};
use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const START: i64 = 1_700_000_000_000_000;

/// Made by another program (Python's `hmac`), for requests that were admitted at [`START`].
const COUNTED: &str = "v1.1700000030000000.000102030405060708090a0b0c0d0e0f.7Q0M3ZK8W2FA.a.\
    5;60000000;4;12345678;anonymous.\
    f598543979c256ba45a94a04227690759543df7302a564edad4b991a206a20c4";
const ALLOWED: &str = "v1.1700000030000000.ffffffffffffffffffffffffffffffff.000000000000.i..\
    4e92cc2d1258870fde14f3c000d7e2b18b2e18beffe2317397d6b51f7523ba74";

fn at(seconds: i64) -> Moment {
    Moment { wall: START + seconds * 1_000_000, steady: 0 }
}

fn passes() -> Passes {
    Passes::new(SECRET, at(0))
}

fn shop() -> Subject<'static> {
    Subject { address: "192.0.2.7".parse().unwrap(), method: "GET", uri: "/shop?item=1" }
}

fn anything() -> Subject<'static> {
    Subject { address: "2001:db8::1".parse().unwrap(), method: "PROPFIND", uri: "*" }
}

fn counted() -> Passed {
    let taken = Taken { admitted: true, remaining: 4, frees_in: Duration::from_micros(12_345_678) };
    let quota = QuotaState { policy: "anonymous".into(), quota: Quota::ANONYMOUS, taken };
    let reference = "7Q0M3ZK8W2FA".parse().unwrap();
    Passed { reference, authenticated: false, quota: Some(quota) }
}

fn allowed() -> Passed {
    let reference = Reference::from_bits(0).unwrap();
    Passed { reference, authenticated: true, quota: None }
}

#[rstest]
#[case(COUNTED, shop(), counted(), 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f)]
#[case(ALLOWED, anything(), allowed(), u128::MAX)]
fn the_vectors_are_written_and_taken(
    #[case] vector: &str,
    #[case] subject: Subject<'_>,
    #[case] passed: Passed,
    #[case] nonce: u128,
) {
    assert_eq!(passes().write(&subject, &passed, at(30).wall, nonce), vector);
    assert_eq!(passes().take(vector.as_bytes(), &subject, at(1)), Ok(passed));
}

#[test]
fn a_pass_is_taken_once_and_another_for_the_same_request_is_another() {
    let passes = passes();
    let issue = || passes.issue(&shop(), &counted(), at(1)).unwrap();
    let both = [issue(), issue()];
    assert_ne!(both[0], both[1]);
    for pass in &both {
        assert_eq!(passes.take(pass.as_bytes(), &shop(), at(2)), Ok(counted()));
    }
    for later in 2..40 {
        let expected = if later < 31 { PassError::Taken } else { PassError::Ended };
        for pass in &both {
            let again = passes.take(pass.as_bytes(), &shop(), at(later));
            assert_eq!(again, Err(expected), "after {later} s");
        }
    }
    // Nor when the clock is set back.
    assert_eq!(passes.take(both[0].as_bytes(), &shop(), at(3)), Err(PassError::Ended));
}

#[test]
fn a_pass_is_for_one_address_method_and_uri_and_from_who_knows_the_secret() {
    let elsewhere = Subject { address: "192.0.2.8".parse().unwrap(), ..shop() };
    let otherwise = Subject { method: "POST", ..shop() };
    let asking_more = Subject { uri: "/shop?item=1&item=2", ..shop() };
    // What moves from one part to the next changes what is signed.
    let shifted = Subject { method: "GET/", uri: "shop?item=1", ..shop() };
    for subject in [elsewhere, otherwise, asking_more, shifted, anything()] {
        let taken = passes().take(COUNTED.as_bytes(), &subject, at(1));
        assert_eq!(taken, Err(PassError::Foreign), "{subject:?}");
    }
    let other = Passes::new(&SECRET.replace('0', "1"), at(0));
    assert_eq!(other.take(COUNTED.as_bytes(), &shop(), at(1)), Err(PassError::Foreign));
    // The address may come in another form.
    let mapped = Subject { address: "::ffff:192.0.2.7".parse().unwrap(), ..shop() };
    assert_eq!(passes().take(COUNTED.as_bytes(), &mapped, at(1)), Ok(counted()));
}

#[test]
fn a_pass_in_which_any_byte_was_changed_does_not_count() {
    let passes = passes();
    for place in 0..COUNTED.len() {
        for byte in [b'0', b'1', b'.', b';', b'A', b' ', 0, 0xff] {
            let mut pass = COUNTED.as_bytes().to_vec();
            if pass[place] == byte {
                continue;
            }
            pass[place] = byte;
            assert_eq!(passes.take(&pass, &shop(), at(1)), Err(PassError::Foreign), "{place}");
        }
        let cut = &COUNTED.as_bytes()[..place];
        assert_eq!(passes.take(cut, &shop(), at(1)), Err(PassError::Foreign));
    }
    let long = [COUNTED.as_bytes(), &[b'0'; 1_000]].concat();
    assert_eq!(passes.take(&long, &shop(), at(1)), Err(PassError::Foreign));
    let capitals = COUNTED.replace("f598543979c256ba", "F598543979C256BA");
    assert_eq!(passes.take(capitals.as_bytes(), &shop(), at(1)), Err(PassError::Foreign));
    assert_eq!(passes.take(COUNTED.as_bytes(), &shop(), at(1)), Ok(counted()));
}

#[test]
fn a_pass_ends_after_thirty_seconds_and_lasts_no_longer_however_it_is_signed() {
    let passes = passes();
    let issue = |ends| passes.write(&shop(), &counted(), at(ends).wall, ends as u128);
    assert_eq!(passes.take(issue(30).as_bytes(), &shop(), at(29)), Ok(counted()));
    assert_eq!(passes.take(issue(31).as_bytes(), &shop(), at(31)), Err(PassError::Ended));
    // A clock that is ahead by up to five seconds is forgiven.
    assert_eq!(passes.take(issue(66).as_bytes(), &shop(), at(31)), Ok(counted()));
    assert_eq!(passes.take(issue(67).as_bytes(), &shop(), at(31)), Err(PassError::Untimely));
}

#[test]
fn a_pass_from_before_this_process_may_have_been_taken_by_an_earlier_one() {
    let restarted = Passes::new(SECRET, at(1));
    assert_eq!(restarted.take(COUNTED.as_bytes(), &shop(), at(2)), Err(PassError::Untimely));
}

#[test]
fn what_is_remembered_is_bounded_and_nothing_that_holds_is_forgotten_for_it() {
    let (second, most) = (1_000_000, 10);
    let mut replay = Replay::with_room_for(most, 0);
    for nonce in 0..10 {
        assert_eq!(replay.take(nonce, 30 * second, 0), Once::First);
    }
    assert_eq!(replay.take(10, 30 * second, 0), Once::Full);
    assert_eq!(replay.take(9, 30 * second, 0), Once::Again);
    assert_eq!(replay.len(), most);
    // At the last moment at which they may hold, all are still known.
    for nonce in 0..10 {
        assert_eq!(replay.take(nonce, 35 * second, 35 * second - 1), Once::Again);
    }
    // After two spans there is room again.
    assert_eq!(replay.take(11, 100 * second, 71 * second), Once::First);
    assert_eq!(replay.len(), 1);
}

#[test]
fn a_steady_stream_is_remembered_for_as_long_as_it_holds_and_not_much_longer() {
    let second = 1_000_000;
    let mut replay = Replay::with_room_for(1_000, 0);
    for now in 0..1_000_i64 {
        let (nonce, ends) = (now as u128, (now + 30) * second);
        assert_eq!(replay.take(nonce, ends, now * second), Once::First, "{now}");
        for age in 1..30.min(now) {
            let (nonce, ends) = ((now - age) as u128, (now - age + 30) * second);
            assert_eq!(replay.take(nonce, ends, now * second), Once::Again, "{now} {age}");
        }
        assert!(replay.len() <= 2 * 35, "{}", replay.len());
    }
}
