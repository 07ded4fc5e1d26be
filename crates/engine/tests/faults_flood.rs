//! Millions of addresses, each seen once, within a bound of memory.

use std::net::{IpAddr, Ipv6Addr};

use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;
use ipwarden_engine::quota::{Bucket, Quota};
use ipwarden_engine::rate_limit::{Limiter, LocalOptions};
use ipwarden_testbed::report::{Part, report, short_or_long};

const OFFENDERS: u64 = 1_000;

#[tokio::test]
async fn millions_of_distinct_64s_stay_within_the_bound_and_free_no_offender() {
    let (newcomers, max_bytes) = short_or_long((1_000_000, 32_000_000), (10_000_000, 256_000_000));
    let before = resident();
    let limiter = Limiter::local(LocalOptions { max_bytes });
    let worker = limiter.worker();
    let start = Moment { wall: 1_790_000_000_000_000, steady: 5_000_000 };
    let take = async |client: u64, micros: u64| {
        let now = Moment { steady: start.steady + micros, ..start };
        worker.take("anonymous", of_64(client), Quota::ANONYMOUS, now).await.admitted
    };
    for offender in 0..OFFENDERS {
        for request in 0..6 {
            assert_eq!(take(offender, 0).await, request < 5);
        }
    }
    let (mut most, mut refused) = (0, 0);
    for newcomer in 0..newcomers {
        // All of them within the window of the offenders: 50 s.
        let micros = 1_000_000 + newcomer * 50_000_000 / newcomers;
        assert!(take(OFFENDERS + newcomer, micros).await, "a newcomer is refused");
        if newcomer % 1_000 == 0 {
            assert!(!take(newcomer / 1_000 % OFFENDERS, micros).await, "an offender is admitted");
            refused += 1;
        }
        if newcomer % 100_000 == 0 {
            let state = limiter.state();
            assert!(state.bytes <= max_bytes, "{state:?}");
            most = most.max(state.bytes);
        }
    }
    for offender in 0..OFFENDERS {
        assert!(!take(offender, 59_000_000).await, "offender {offender} is forgotten");
        refused += 1;
    }
    let (state, grown) = (limiter.state(), resident().saturating_sub(before));
    assert!(state.bytes <= max_bytes, "{state:?}");
    let forgotten = newcomers + OFFENDERS - state.keys as u64;
    assert_eq!(state.evictions, forgotten, "each that was forgotten is counted");
    assert!(state.evictions > newcomers / 2, "memory was never full: {state:?}");
    assert_eq!(state.shared_takes, 0, "there was always somebody with credit left");
    // What the allocator and the test itself keep besides is not the limiter's.
    assert!(grown <= max_bytes + max_bytes / 4 + 16_000_000, "the process grew by {grown} bytes");
    for offender in 0..OFFENDERS {
        assert!(take(offender, 60_000_000).await, "the window of {offender} has freed");
    }
    report(
        Part::Quotas,
        format!("{newcomers} distinct /64s within 50 s, {OFFENDERS} clients exhausted before"),
        format!(
            "within {} MB; no exhausted client admitted; what is forgotten is counted",
            mb(max_bytes)
        ),
        format!(
            "{} MB at most, the process grew by {} MB; {refused} requests of exhausted clients, all \
             refused; {} clients with credit forgotten and counted",
            mb(most.max(state.bytes)),
            mb(grown),
            state.evictions,
        ),
    );
}

fn of_64(number: u64) -> Bucket<'static> {
    let address = Ipv6Addr::from_bits(u128::from(0x2001_0db8_0000_0000 + number) << 64 | 1);
    Bucket::Network(Network::of_client(IpAddr::from(address), 64))
}

fn mb(bytes: usize) -> usize {
    bytes.div_ceil(1_000_000)
}

/// The memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("in kB");
    kilobytes.trim().parse::<usize>().expect("a number") * 1024
}
