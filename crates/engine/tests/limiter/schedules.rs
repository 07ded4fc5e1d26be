//! Random schedules on Redis, against the obvious limiter as far as real time lets one tell.

use std::time::Duration;

use ipwarden_engine::clock::Moment;
use ipwarden_engine::quota::Quota;
use ipwarden_engine::rate_limit::Limiter;
use ipwarden_testbed::report::seed;

use super::bench::{numbered, on_redis, patient};

/// A take: from before it was asked until after it was answered, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Take {
    sent: u64,
    answered: u64,
    admitted: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_schedule_over_two_replicas_on_redis_is_decided_as_by_the_obvious_limiter() {
    let seed = seed();
    let server = ipwarden_testbed::redis().unwrap();
    let replicas = [on_redis(server.url(), patient()), on_redis(server.url(), patient())];
    let mut schedules = tokio::task::JoinSet::new();
    for number in 0..48 {
        let rng = fastrand::Rng::with_seed(seed.wrapping_add(number));
        schedules.spawn(run(replicas.clone(), rng));
    }
    let (mut takes, mut refused) = (0, 0);
    for (quota, clients) in schedules.join_all().await {
        for client in clients {
            assert_as_by_the_obvious(quota, &client);
            takes += client.len();
            refused += client.iter().filter(|take| !take.admitted).count();
        }
    }
    assert!(refused > takes / 10 && refused < takes, "{refused} of {takes} refused tells little");
    assert!(replicas.iter().all(|replica| replica.state().fallbacks == 0));
}

/// One policy of its own, three clients, steps that meet the edges of its window.
async fn run(replicas: [Limiter; 2], mut rng: fastrand::Rng) -> (Quota, [Vec<Take>; 3]) {
    let policy = ipwarden_testbed::unique_name("schedule");
    let period = Duration::from_millis(rng.u64(100..400));
    let quota = Quota::new(rng.u32(1..9), period);
    let workers = replicas.map(|replica| replica.worker());
    let mut takes: [Vec<Take>; 3] = Default::default();
    for _ in 0..150 {
        let pause = match rng.u8(0..16) {
            0..8 => Duration::ZERO,
            8..15 => period.mul_f64(rng.f64() / 3.0),
            _ => period + Duration::from_micros(rng.u64(0..2_000)),
        };
        // A step of the schedule: this store's time cannot be turned.
        tokio::time::sleep(pause).await;
        let (client, worker) = (rng.usize(..3), &workers[rng.usize(..2)]);
        let sent = Moment::now();
        let taken = worker.take(&policy, numbered(client as u32), quota, sent).await;
        let answered = Moment::now().steady;
        takes[client].push(Take { sent: sent.steady, answered, admitted: taken.admitted });
    }
    (quota, takes)
}

fn assert_as_by_the_obvious(quota: Quota, takes: &[Take]) {
    let period = quota.period.as_micros() as u64;
    let limit = quota.limit as usize;
    let admitted: Vec<Take> = takes.iter().copied().filter(|take| take.admitted).collect();
    for more in admitted.windows(limit + 1) {
        let span = more[limit].answered - more[0].sent;
        assert!(span >= period, "{} within {span} us by {quota}: {more:?}", limit + 1);
    }
    // A refusal is remembered until the window frees, as one knows it when it arrives.
    let longest = takes.iter().map(|take| take.answered - take.sent).max().unwrap_or(0);
    for refused in takes.iter().filter(|take| !take.admitted) {
        let may_count = |take: &&Take| {
            take.sent <= refused.answered && take.answered + period + longest >= refused.sent
        };
        let count = admitted.iter().filter(may_count).count();
        assert!(count >= limit, "refused with {count} admitted by {quota}: {refused:?}");
    }
}
