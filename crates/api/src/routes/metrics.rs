//! `/metrics` for Prometheus. Labels are from closed sets: never an address, a path or a user.

use actix_web::{HttpResponse, web};
use ipwarden_core::context::Context;
use ipwarden_core::health;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::quota::Quota;
use ipwarden_engine::rate_limit::BreakerState;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::error::ApiError;

type Label = [(&'static str, String); 1];

/// The counters live with what they count; a scrape copies them.
pub(crate) async fn metrics(context: web::Data<Context>) -> Result<HttpResponse, ApiError> {
    let mut text = String::new();
    encode(&mut text, &registry(&context)).map_err(|error| ApiError::Internal {
        cause: error.to_string(),
        reference: ipwarden_engine::record::Reference::random(),
    })?;
    Ok(HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(text))
}

fn registry(context: &Context) -> Registry {
    let mut all = Registry::with_prefix("ipwarden");
    let counts = context.guard.counts();
    counters(
        &mut all,
        "requests",
        "Requests by verdict",
        "verdict",
        &[
            ("allowed", counts.allowed),
            ("blocked", counts.blocked),
            ("throttled", counts.throttled),
        ],
    );
    counter(&mut all, "would_limit", "Requests that a dry run would refuse", counts.would_limit);
    counter(&mut all, "unresolved_clients", "Unreadable headers of proxies", counts.unresolved);
    counter(&mut all, "proxy_requests", "Requests of proxies themselves", counts.of_proxies);

    let now = Moment::now();
    let spool = context.guard.spool().status();
    gauge(&mut all, "spool_bytes", "Disk that the spool takes", spool.bytes);
    let age = health::age_of_oldest(&spool, now).as_secs();
    gauge(&mut all, "spool_oldest_seconds", "Age of the oldest record not shipped", age);
    let bound = context.config.request_log.spool_bytes;
    gauge(&mut all, "spool_bound_bytes", "Disk that the spool may take", bound);
    gauge(&mut all, "spool_segments", "Segments of the spool", spool.segments as u64);
    counters(
        &mut all,
        "records_lost",
        "Records that the spool lost, by cause",
        "cause",
        &[("disk_full", spool.dropped), ("spool_full", spool.evicted)],
    );
    counters(
        &mut all,
        "segments_lost",
        "Segments of the spool that could not be read whole, by cause",
        "cause",
        &[("damaged", spool.damaged), ("removed", spool.missing)],
    );
    let shipped = context.recorder.status().shipped;
    counter(&mut all, "records_shipped", "Records written to the store", shipped);

    let limiter = context.guard.limiter().state();
    gauge(&mut all, "limiter_clients", "Clients with a quota in memory", limiter.keys as u64);
    gauge(&mut all, "limiter_bytes", "Memory of the quotas", limiter.bytes as u64);
    counter(&mut all, "limiter_evictions", "Quotas forgotten for memory", limiter.evictions);
    counter(&mut all, "limiter_fallbacks", "Decisions without Redis", limiter.fallbacks);
    counter(&mut all, "redis_losses", "Times that Redis was lost", limiter.losses);
    let (returns, again) = (limiter.returns, limiter.interruptions);
    counter(&mut all, "redis_returns", "Times that Redis came back", returns);
    counter(&mut all, "redis_interruptions", "Connections to Redis made anew at once", again);
    counters(
        &mut all,
        "extra_admissions_possible",
        "What the loss, return and restart of Redis may have admitted each client beyond its quota",
        "policy",
        &limits(context)
            .map(|(policy, limit)| (policy, limiter.extra_admissions_possible(limit)))
            .collect::<Vec<_>>(),
    );
    let in_flight = limiter.in_flight as u64;
    gauge(&mut all, "redis_commands_in_flight", "Quota questions on their way", in_flight);
    gauge(&mut all, "live_replicas", "Replicas that live", limiter.live_replicas.into());
    let open = limiter.breaker.is_some_and(|state| state != BreakerState::Closed);
    gauge(&mut all, "redis_breaker_open", "Whether Redis is not asked", open.into());
    let breaker = [
        ("closed", BreakerState::Closed),
        ("open", BreakerState::Open),
        ("half_open", BreakerState::HalfOpen),
    ];
    let breaker = breaker.map(|(name, state)| (name, u64::from(limiter.breaker == Some(state))));
    gauges(&mut all, "redis_breaker", "State of the breaker before Redis", "state", breaker);

    let feed = context.feed.status();
    let lists = feed.borrow();
    gauge(&mut all, "lists_version", "Version of the lists in force", lists.version.unsigned_abs());
    gauge(&mut all, "blocked_networks", "Blocked networks", lists.blocked as u64);
    gauge(&mut all, "allowed_networks", "Allowed networks", lists.allowed as u64);
    drop(lists);
    let conditions = health::known(context, now);
    let degraded = conditions.iter().any(|condition| condition.degraded);
    gauge(&mut all, "degraded", "Whether anything is degraded", degraded.into());
    let parts = conditions.iter().map(|part| (part.name, part.degraded.into()));
    gauges(&mut all, "degraded_part", "Whether this part is degraded", "part", parts);
    all
}

/// The quota policies by the names that header fields give them, with their largest limit.
fn limits(context: &Context) -> impl Iterator<Item = (&str, u32)> {
    let defaults = [
        ("anonymous", Quota::ANONYMOUS),
        ("authenticated", Quota::AUTHENTICATED),
        ("proxy", Quota::PROXY),
    ];
    let own = context.config.quotas.iter().map(|policy| {
        (policy.name.as_str(), policy.anonymous.limit.max(policy.authenticated.limit))
    });
    defaults.map(|(name, quota)| (name, quota.limit)).into_iter().chain(own)
}

fn counter(all: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    all.register(name, help, counter);
}

fn counters(
    all: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[(&str, u64)],
) {
    let family = Family::<Label, Counter>::default();
    for (which, value) in values {
        family.get_or_create(&[(label, (*which).to_owned())]).inc_by(*value);
    }
    all.register(name, help, family);
}

fn gauges(
    all: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl IntoIterator<Item = (&'static str, u64)>,
) {
    let family = Family::<Label, Gauge>::default();
    for (which, value) in values {
        family
            .get_or_create(&[(label, which.to_owned())])
            .set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    all.register(name, help, family);
}

fn gauge(all: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    all.register(name, help, gauge);
}
