//! The script against the obvious limiter, with time as an argument.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use super::*;

const PERIOD: u64 = 60_000_000;
const GRAIN: u64 = PERIOD / GRAINS;

/// The script with its look at the clock replaced by two more arguments.
fn script() -> Script {
    let clock = "redis.call('TIME')";
    assert_eq!(SOURCE.matches(clock).count(), 1);
    Script::new(&SOURCE.replace(clock, "{ ARGV[4], ARGV[5] }"))
}

struct Bench {
    runtime: Runtime,
    redis: RedisConnection,
    script: Script,
    key: String,
}

impl Bench {
    fn new() -> Bench {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let url: crate::redis::RedisUrl = ipwarden_testbed::redis().unwrap().url().parse().unwrap();
        let redis = runtime.block_on(url.connect(Duration::from_secs(10))).unwrap();
        Bench { runtime, redis, script: script(), key: ipwarden_testbed::unique_name("script") }
    }

    fn forget(&mut self) {
        let mut delete = redis::cmd("DEL");
        let deleted = delete.arg(&self.key).query_async::<()>(&mut self.redis);
        self.runtime.block_on(deleted).unwrap();
    }

    fn take(&mut self, limit: u32, grain: u64, now: u64) -> (bool, u32, u64) {
        let mut call = self.script.key(&self.key);
        call.arg(limit).arg(PERIOD).arg(grain);
        call.arg(now / 1_000_000).arg(now % 1_000_000);
        self.runtime.block_on(call.invoke_async(&mut self.redis)).unwrap()
    }
}

const START: u64 = 1_790_000_000_123_456;

fn step() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => Just(0),
        2 => 1..3_u64,
        6 => 0..PERIOD / 3,
        2 => PERIOD - 2..PERIOD + 3,
        1 => Just(3_600_000_000),
    ]
}

#[test]
fn any_schedule_and_any_change_of_limit_is_decided_as_by_the_obvious_limiter() {
    let schedules = prop::collection::vec((step(), 1..9_u32), 1..60);
    let bench = std::cell::RefCell::new(Bench::new());
    let mut runner = TestRunner::new(Config { cases: 64, ..Config::default() });
    let outcome = runner.run(&schedules, |schedule| {
        let bench = &mut *bench.borrow_mut();
        bench.forget();
        let mut log: Vec<u64> = Vec::new();
        let mut now = START;
        for (step, limit) in schedule {
            now += step;
            log.retain(|at| at + PERIOD > now);
            let admitted = log.len() < limit as usize;
            if admitted {
                log.push(now);
            }
            let remaining = limit.saturating_sub(log.len() as u32);
            let frees_at = log[log.len().saturating_sub(limit as usize)] + PERIOD;
            let expected = (admitted, remaining, frees_at - now);
            prop_assert_eq!(bench.take(limit, 0, now), expected);
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn counted_in_grains_a_limit_is_never_passed_and_credit_is_at_most_a_grain_late() {
    let schedules = prop::collection::vec((0..9_000_000_u64, 1..12_u32), 1..40);
    let bench = std::cell::RefCell::new(Bench::new());
    let mut runner = TestRunner::new(Config { cases: 24, ..Config::default() });
    let outcome = runner.run(&schedules, |schedule| {
        let bench = &mut *bench.borrow_mut();
        bench.forget();
        let (limit, mut admitted, mut now) = (20, Vec::new(), START);
        for (step, burst) in schedule {
            now += step;
            for _ in 0..burst {
                let within = |span| admitted.iter().filter(|at| *at + span > now).count();
                let (exact, late) = (within(PERIOD), within(PERIOD + GRAIN));
                if bench.take(limit, GRAIN, now).0 {
                    prop_assert!(exact < 20);
                    admitted.push(now);
                } else {
                    prop_assert!(late >= 20);
                }
            }
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_clock_that_goes_back_locks_nobody_out_for_longer_than_a_period() {
    for back in [1, 500, 1_000_000, 3_600_000_000, START] {
        let mut bench = Bench::new();
        for _ in 0..5 {
            assert!(bench.take(5, 0, START).0);
        }
        let now = START - back;
        let (admitted, remaining, frees_in) = bench.take(5, 0, now);
        assert_eq!((admitted, remaining), (false, 0), "{back} us back");
        assert_eq!(frees_in, PERIOD, "{back} us back");
        assert!(!bench.take(5, 0, now + PERIOD - 1).0);
        assert!(bench.take(5, 0, now + PERIOD).0);
    }
}
