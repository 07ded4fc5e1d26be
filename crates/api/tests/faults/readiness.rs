//! What is degraded is said, and is said no longer when it is whole again.

use ipwarden_testbed::report::{Part, report};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::common::{Bed, PATIENCE, Replica, eventually};
use super::turn;

/// A minute is what the slowest of them looks after: files of places, the last scan.
const NOTICED: std::time::Duration = std::time::Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_part_that_is_degraded_says_so_in_readiness_and_metrics_until_it_is_whole() {
    let _turn = turn().await;
    let server = tokio::task::spawn_blocking(ipwarden_testbed::postgres_private);
    let server = server.await.unwrap().unwrap();
    let redis = ipwarden_testbed::redis_private().unwrap();
    let bed =
        Bed::on_own_postgres(&server, 1, Some(redis.clone()), |one| one.behind_proxies()).await;
    let replica = bed.first();

    // No scheduler runs here.
    degraded(replica, "scan", "none has run yet").await;
    bed.database().execute(SCANNED).unwrap();
    whole(replica, "scan").await;
    assert_eq!(replica.metric("ipwarden_degraded").await, 0, "{}", replica.open(VERBOSE).await.1);

    server.freeze().unwrap();
    degraded(replica, "lists", "the store does not answer").await;
    assert_eq!(replica.get("203.0.113.1", "/").await.status(), StatusCode::OK);
    degraded(replica, "request log", "the store takes no records").await;
    degraded(replica, "scan", "the store does not say").await;
    server.thaw().unwrap();
    for part in ["lists", "request log", "scan"] {
        whole(replica, part).await;
    }
    assert!(replica.metric("ipwarden_spool_bytes").await > 0);

    redis.stop().unwrap();
    // Only who asks it notices that it is gone.
    let _noticed = replica.get("203.0.113.2", "/").await;
    degraded(replica, "quotas", "Redis does not answer").await;
    redis.start().unwrap();
    whole(replica, "quotas").await;
    assert!(
        replica.metric("ipwarden_extra_admissions_possible_total{policy=\"anonymous\"}").await > 0
    );

    let place = replica.dir().join("geoip/places.mmdb");
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, "no places").unwrap();
    degraded(replica, "places", "1 files cannot be used").await;
    let good = replica.dir().join("good.mmdb");
    ipwarden_testbed::geo::write_city(&good, &[("203.0.113.0/24", "DE", "Berlin")]).unwrap();
    std::fs::rename(good, place).unwrap();
    whole(replica, "places").await;

    // It stays for ten minutes: a header that nobody could read is over when one looks.
    assert_eq!(replica.get("no address", "/").await.status(), StatusCode::OK);
    degraded(replica, "clients", "did not name the client of 1 requests").await;
    let block = json!({ "target": "203.0.113.9" });
    let (status, _) = bed.api(Method::POST, "/api/v1/blocks", Some(block)).await;
    assert_eq!(status, StatusCode::CREATED, "degraded is not down");
    report(
        Part::Stops,
        "PostgreSQL frozen, Redis killed, a damaged file of places, no scan, a client that no proxy named",
        "`/readyz?verbose` and `ipwarden_degraded_part` name the part while it lasts, and the service stays ready",
        "each was named, with what to do, and no longer when it was whole again",
    );
}

/// What a scheduler leaves behind.
const SCANNED: &str = "insert into scan_runs \
    (window_start, window_end, scheduler, started_at, finished_at, findings) \
    select h - interval '1 hour', h, 'one', now(), now(), 0 from date_trunc('hour', now()) h";
const VERBOSE: &str = "/readyz?verbose";

async fn degraded(replica: &Replica, part: &str, why: &str) {
    let says = format!("[!] {part}: ");
    let what = format!("{part} is degraded");
    eventually(NOTICED, &what, async || {
        let (status, text) = replica.open(VERBOSE).await;
        assert_eq!(status, StatusCode::OK, "degraded but serving is ready: {text}");
        let line = text.lines().find(|line| line.starts_with(&says))?;
        line.contains(why).then_some(())
    })
    .await;
    let metric = format!("ipwarden_degraded_part{{part=\"{part}\"}}");
    eventually(PATIENCE, &metric, async || {
        (replica.last_metric(&metric).await == Some(1)).then_some(())
    })
    .await;
    assert_eq!(replica.metric("ipwarden_degraded").await, 1);
}

async fn whole(replica: &Replica, part: &str) {
    let says = format!("[+] {part}: ");
    let what = format!("{part} is whole");
    eventually(NOTICED, &what, async || {
        let (_, text) = replica.open(VERBOSE).await;
        text.lines().any(|line| line.starts_with(&says)).then_some(())
    })
    .await;
    let metric = format!("ipwarden_degraded_part{{part=\"{part}\"}}");
    eventually(PATIENCE, &metric, async || {
        (replica.last_metric(&metric).await == Some(0)).then_some(())
    })
    .await;
}
