//! What only a clock that is an argument, and memory of our own, can show.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;
use ipwarden_engine::quota::{Bucket, Quota};
use ipwarden_engine::rate_limit::{Local, LocalOptions};
use proptest::prelude::*;

use super::bench::{address, later, numbered, per_minute};

const START: Moment = Moment { wall: 1_790_000_000_000_000, steady: 5_000_000 };

fn at(span: Duration) -> Moment {
    later(START, span)
}

fn seconds(seconds: u64) -> Moment {
    at(Duration::from_secs(seconds))
}

fn small(max_bytes: usize) -> Local {
    Local::new(LocalOptions { max_bytes })
}

#[test]
fn retry_after_is_what_is_left_of_the_oldest_admitted_request() {
    let local = Local::new(LocalOptions::default());
    let client = address("203.0.113.9");
    for second in 0..5 {
        let taken = local.take("anonymous", client, Quota::ANONYMOUS, seconds(second));
        assert!(taken.admitted);
        assert_eq!(taken.retry_after_seconds(), 60 - second);
    }
    let refused = local.take("anonymous", client, Quota::ANONYMOUS, seconds(5));
    assert_eq!((refused.admitted, refused.retry_after_seconds()), (false, 55));
    let almost = at(Duration::from_micros(59_999_999));
    let refused = local.take("anonymous", client, Quota::ANONYMOUS, almost);
    assert_eq!((refused.admitted, refused.retry_after_seconds()), (false, 1));
    assert!(local.take("anonymous", client, Quota::ANONYMOUS, seconds(60)).admitted);
    assert!(!local.take("anonymous", client, Quota::ANONYMOUS, seconds(60)).admitted);
    assert!(local.take("anonymous", client, Quota::ANONYMOUS, seconds(61)).admitted);
}

#[test]
fn five_requests_at_the_end_of_a_minute_leave_none_for_the_next() {
    let local = Local::new(LocalOptions::default());
    let client = address("203.0.113.9");
    // xx:xx:59.0 by the wall clock, and two seconds later.
    let wall = 1_790_000_039_000_000;
    let mut admitted = 0;
    for second in [0, 2] {
        let now = Moment { wall: wall + 1_000_000 * second as i64, ..seconds(second) };
        for _ in 0..5 {
            let taken = local.take("anonymous", client, Quota::ANONYMOUS, now);
            admitted += u32::from(taken.admitted);
        }
    }
    assert_eq!(admitted, 5);
}

#[test]
fn a_hundred_requests_a_second_for_ten_minutes_are_admitted_fifty_times() {
    let local = Local::new(LocalOptions::default());
    let client = address("203.0.113.9");
    let admitted = (0..60_000)
        .filter(|request| {
            let now = at(Duration::from_millis(10 * request));
            local.take("anonymous", client, Quota::ANONYMOUS, now).admitted
        })
        .count();
    assert_eq!(admitted, 50);
}

#[test]
fn steps_of_the_wall_clock_change_nothing() {
    let local = Local::new(LocalOptions::default());
    let client = address("203.0.113.9");
    let (hour, year_1970, year_2040) = (3_600_000_000, 0, 2_208_988_800_000_000);
    let walls = [START.wall + hour, START.wall - hour, year_1970, year_2040];
    let admitted = (0..120_u64)
        .filter(|second| {
            let now = Moment { wall: walls[*second as usize % 4], ..seconds(*second) };
            local.take("anonymous", client, Quota::ANONYMOUS, now).admitted
        })
        .count();
    assert_eq!(admitted, 10);
}

#[test]
fn each_of_several_replicas_without_redis_takes_its_share() {
    for (live, share) in [(0, 5), (1, 5), (2, 2), (4, 1), (9, 1)] {
        let local = Local::new(LocalOptions::default());
        local.set_live_replicas(live);
        let admitted = (0..20)
            .filter(|_| {
                local
                    .take("anonymous", address("203.0.113.9"), Quota::ANONYMOUS, seconds(0))
                    .admitted
            })
            .count();
        assert_eq!(admitted, share, "{live} live replicas");
    }
}

#[test]
fn a_client_costs_little_memory() {
    let local = Local::new(LocalOptions::default());
    for number in 0..300_000 {
        local.take("anonymous", numbered(number), Quota::ANONYMOUS, seconds(0));
    }
    let state = local.state();
    assert_eq!(state.keys, 300_000);
    assert!(state.bytes <= 68 * state.keys, "{} bytes a key", state.bytes / state.keys);
}

#[test]
fn logs_that_have_run_out_are_reclaimed_as_others_are_taken_from() {
    let local = small(4_000_000);
    for number in 0..40_000 {
        local.take("anonymous", numbered(number), Quota::ANONYMOUS, seconds(0));
    }
    for number in 0..40_000 {
        local.take("anonymous", numbered(1_000_000 + number), Quota::ANONYMOUS, seconds(61));
    }
    let state = local.state();
    assert!(state.keys < 41_000, "{} keys are kept", state.keys);
    for request in 0..800_000 {
        let bucket = numbered(1_000_000 + request % 2_000);
        local.take("anonymous", bucket, Quota::ANONYMOUS, seconds(130));
    }
    let state = local.state();
    assert!(state.keys < 4_000, "{} keys are kept", state.keys);
    assert!(state.bytes < 600_000, "{} bytes are kept", state.bytes);
    assert_eq!(state.evictions, 0);
}

#[test]
fn a_flood_of_addresses_neither_exceeds_memory_nor_frees_an_offender() {
    let max_bytes = 2_000_000;
    let local = small(max_bytes);
    let offenders = 1_000;
    for number in 0..offenders {
        for request in 0..6 {
            let taken = local.take("anonymous", numbered(number), Quota::ANONYMOUS, seconds(0));
            assert_eq!(taken.admitted, request < 5);
        }
    }
    for number in 0..1_200_000 {
        let now = at(Duration::from_micros(1_000_000 + 20 * u64::from(number)));
        local.take("anonymous", numbered(10_000 + number), Quota::ANONYMOUS, now);
        if number % 100_000 == 0 {
            assert!(local.state().bytes <= max_bytes, "{:?}", local.state());
        }
    }
    let state = local.state();
    assert!(state.bytes <= max_bytes, "{state:?}");
    assert!(state.evictions > 1_000_000, "{state:?}");
    assert_eq!(state.shared_takes, 0, "there was always someone with credit");
    for number in 0..offenders {
        assert!(!local.take("anonymous", numbered(number), Quota::ANONYMOUS, seconds(59)).admitted);
    }
}

#[test]
fn long_logs_are_bounded_like_many_short_ones() {
    let quota = Quota::new(1_000, Duration::from_secs(3_600));
    // Many times, because each limiter spreads clients over its shards in its own way.
    for max_bytes in [65_536, 200_000, 1_000_000].repeat(8) {
        let local = small(max_bytes);
        let clients = (max_bytes / 3_000) as u64;
        for request in 0..100_000_u64 {
            let now = at(Duration::from_millis(request));
            local.take("long", numbered((request % clients) as u32), quota, now);
            if request % 100 == 0 {
                let state = local.state();
                assert!(state.bytes <= max_bytes, "{max_bytes} after {request}: {state:?}");
            }
        }
        assert!(local.state().evictions > 0, "{:?}", local.state());
    }
}

/// What many short logs have left behind counts, too.
#[test]
fn long_logs_in_the_place_of_short_ones_are_bounded() {
    for max_bytes in [65_536, 200_000, 1_000_000].repeat(4) {
        let local = small(max_bytes);
        let stays_within = |local: &Local| {
            let state = local.state();
            assert!(state.bytes <= max_bytes, "{max_bytes}: {state:?}");
        };
        for client in 0..(max_bytes / 50) as u32 {
            local.take("anonymous", numbered(client), Quota::ANONYMOUS, seconds(0));
        }
        stays_within(&local);
        let quota = Quota::new(1_000, Duration::from_secs(3_600));
        for request in 0..20_000_u64 {
            let now = at(Duration::from_millis(request));
            local.take("long", numbered(1_000_000 + (request % 20) as u32), quota, now);
            if request % 20 == 0 {
                stays_within(&local);
            }
        }
    }
}

#[test]
fn where_only_exhausted_clients_remain_newcomers_share_by_their_wider_network() {
    let local = small(65_536);
    let once = per_minute(1);
    let take = |bucket, second| local.take("strict", bucket, once, seconds(second));
    // Each is exhausted by its first request, so none of them may be forgotten.
    let crowd = (0..5_000).map(|number| numbered(number << 8));
    let admitted_alone = crowd.filter(|bucket| take(*bucket, 0).admitted).count();
    assert!(admitted_alone > 500, "{admitted_alone}");
    assert_eq!(local.state().evictions, 0);
    assert!(local.state().shared_takes > 0);
    assert!(local.state().bytes <= 65_536, "{:?}", local.state());
    assert!(!take(numbered(0), 1).admitted, "the first of them is still remembered");

    let host = |number: u8| Bucket::Network(Network::from(IpAddr::from([198, 51, 100, number])));
    let from_one_24 = (0..50).filter(|number| take(host(*number), 2).admitted).count();
    assert!(from_one_24 <= 1, "{from_one_24} of one /24");
    let of_one_48 = (0..50_u16)
        .map(|number| address(&format!("2001:db8:7:{number:x}::1")))
        .filter(|bucket| take(*bucket, 2).admitted)
        .count();
    assert!(of_one_48 <= 1, "{of_one_48} of one /48");
    let names: Vec<String> = (0..50).map(|number| format!("user {number}")).collect();
    for name in &names {
        take(Bucket::Identity(name), 2);
    }
    assert!(local.state().bytes <= 65_536, "{:?}", local.state());

    // When their windows free, there is room again.
    for number in 0..200 {
        assert!(take(numbered(0x20_0000 + number), 70).admitted);
    }
}

/// The obvious limiter: remembers every admission for ever.
#[derive(Default)]
struct Naive(Vec<u64>);

impl Naive {
    fn take(&mut self, quota: Quota, now: Moment) -> (bool, u32, u64) {
        let period = quota.period.as_micros() as u64;
        let lives = |moment: &u64| moment + period > now.steady;
        let mut count = self.0.iter().copied().filter(lives).count() as u32;
        let admitted = count < quota.limit;
        if admitted {
            self.0.push(now.steady);
            count += 1;
        }
        let beyond = count.saturating_sub(quota.limit) as usize;
        let frees_at = self.0.iter().copied().filter(lives).nth(beyond).map_or(0, |at| at + period);
        (admitted, quota.limit.saturating_sub(count), frees_at - now.steady)
    }
}

/// Steps that meet the edges of a window: none, a microsecond, some of it, all of it, hours.
fn steps(period: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => Just(0),
        2 => 1..3_u64,
        6 => 0..period / 3,
        2 => period - 2..period + 3,
        1 => Just(4_294_967_296 - 1),
        1 => 0..3 * 4_294_967_296_u64,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_schedule_is_decided_as_by_the_obvious_limiter(
        limit in prop_oneof![1..8_u32, 8..40_u32],
        period_seconds in prop_oneof![Just(1_u64), Just(60), Just(3_600), Just(86_400)],
        schedule in prop_oneof![
            Just(1_000_000_u64), Just(60_000_000), Just(86_400_000_000)
        ].prop_flat_map(|period| prop::collection::vec((steps(period), 0..3_u8), 1..200)),
    ) {
        let local = Local::new(LocalOptions::default());
        let quota = Quota::new(limit, Duration::from_secs(period_seconds));
        let mut naive: [Naive; 3] = Default::default();
        let mut now = START;
        for (step, client) in schedule {
            now = later(now, Duration::from_micros(step));
            let taken = local.take("p", numbered(client.into()), quota, now);
            let (admitted, remaining, frees_in) = naive[usize::from(client)].take(quota, now);
            prop_assert_eq!(taken.admitted, admitted);
            prop_assert_eq!(taken.remaining, remaining);
            prop_assert_eq!(taken.frees_in.as_micros() as u64, frees_in);
        }
        for admitted in naive.iter().map(|naive| &naive.0) {
            for span in admitted.windows(limit as usize + 1) {
                prop_assert!(span[limit as usize] - span[0] >= period_seconds * 1_000_000);
            }
        }
    }

    #[test]
    fn limits_that_change_between_takes_are_decided_as_by_the_obvious_limiter(
        schedule in prop::collection::vec((steps(60_000_000), 1..20_u32), 1..150),
    ) {
        let local = Local::new(LocalOptions::default());
        let mut naive = Naive::default();
        let mut now = START;
        for (step, limit) in schedule {
            now = later(now, Duration::from_micros(step));
            let taken = local.take("p", numbered(1), per_minute(limit), now);
            let (admitted, remaining, frees_in) = naive.take(per_minute(limit), now);
            prop_assert_eq!((taken.admitted, taken.remaining), (admitted, remaining));
            prop_assert_eq!(taken.frees_in.as_micros() as u64, frees_in);
        }
    }

    #[test]
    fn a_large_limit_is_never_passed_and_its_credit_returns_at_most_a_64th_late(
        schedule in prop::collection::vec((0..3_000_000_u64, 1..300_u32), 1..60),
    ) {
        let local = Local::new(LocalOptions::default());
        let quota = per_minute(1_200);
        let (period, grain) = (60_000_000, 60_000_000 / 64);
        let mut admitted: Vec<u64> = Vec::new();
        let mut now = START;
        for (step, burst) in schedule {
            now = later(now, Duration::from_micros(step));
            for _ in 0..burst {
                let within = |span| {
                    admitted.len() - admitted.partition_point(|at| *at + span <= now.steady)
                };
                let (exact, late) = (within(period), within(period + grain));
                let taken = local.take("p", numbered(1), quota, now);
                if taken.admitted {
                    prop_assert!(exact < 1_200);
                    admitted.push(now.steady);
                } else {
                    prop_assert!(late >= 1_200);
                }
            }
        }
    }

    /// Threads read the clock before they come to the lock, so moments arrive out of order.
    #[test]
    fn moments_that_arrive_out_of_order_admit_no_more(
        schedule in prop::collection::vec((0..9_000_000_u64, 0..2_000_u64), 1..200),
    ) {
        let local = Local::new(LocalOptions::default());
        let mut admitted: Vec<u64> = Vec::new();
        let mut clock = START;
        for (step, behind) in schedule {
            clock = later(clock, Duration::from_micros(step));
            let now = Moment { steady: clock.steady - behind, ..clock };
            if local.take("p", numbered(1), Quota::ANONYMOUS, now).admitted {
                admitted.push(clock.steady);
            }
        }
        for span in admitted.windows(6) {
            prop_assert!(span[5] - span[0] + 2_000 >= 60_000_000);
        }
    }
}

#[test]
fn an_unspecified_address_and_a_whole_network_are_buckets_like_others() {
    let local = Local::new(LocalOptions::default());
    let zero = Network::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let all = Network::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0).unwrap();
    for network in [zero, all] {
        for request in 0..6 {
            let bucket = Bucket::Network(network);
            let taken = local.take("anonymous", bucket, Quota::ANONYMOUS, seconds(0));
            assert_eq!(taken.admitted, request < 5, "{network}");
        }
    }
}
