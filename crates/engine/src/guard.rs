//! The whole product in one function: [`Worker::judge`].
//!
//! A request is resolved to its client, looked up on the allowlist and the blocklist, and counted
//! against its quota, in this order; everything is in memory but, in a fleet, one look at Redis for a
//! request that is about to be admitted ([`Worker::settle`]). What came of it is recorded by
//! [`Worker::record`], refusals included.
//!
//! What this deliberately does not do: know a web framework (`ipwarden-guard` does), a database (who
//! feeds the guard does), or who somebody is: the caller has found out and passes an [`Identity`].

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::blocklist::{Block, Lists};
use crate::client_ip::{ClientIp, ClientIpResolver};
use crate::clock::Moment;
use crate::network::Network;
use crate::pass::Passed;
use crate::quota::{Bucket, Policies, Quota, Standing};
use crate::rate_limit::{Limiter, Taken, WorkerLimiter, redis_key};
use crate::record::{RecordRef, RecordVerdict, Reference};
use crate::sensitive_path::SensitivePaths;
use crate::spool::{Draft, Spool, SpoolWriter};

pub use counters::Counts;

mod counters;

/// As many as there are in an IPv4 /24.
const MOST_CLIENTS: u32 = 256;

/// What a guard is made of.
pub struct Parts {
    /// Finds the client behind trusted proxies.
    pub resolver: ClientIpResolver,
    /// Which quota applies.
    pub policies: Policies,
    /// Counts.
    pub limiter: Limiter,
    /// Which paths are marked in the log.
    pub sensitive_paths: SensitivePaths,
    /// Where records go.
    pub spool: Spool,
    /// IPv6 clients are counted by their network of this length, in bits.
    pub ipv6_prefix: u8,
}

/// Decides who may pass. One per process, shared by its workers.
pub struct Guard {
    parts: Parts,
    lists: ArcSwap<Lists>,
    /// The store's clock minus the steady clock, in microseconds.
    store_clock: AtomicI64,
    counters: counters::Counters,
}

/// One worker thread's way to the guard: its own spool segment, its own connection to Redis.
pub struct Worker {
    guard: Arc<Guard>,
    limiter: WorkerLimiter,
    spool: RefCell<SpoolWriter>,
    counters: Arc<counters::OfWorker>,
}

/// What the guard needs to know of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// All lines of the one header that [`Guard::client_ip_header`] names, in order of arrival.
    pub forwarded: &'a [&'a [u8]],
    /// As received.
    pub method: &'a str,
    /// As received, percent-encoding kept.
    pub path: &'a str,
    /// Who asks, if that was verified. An unverified credential is anonymous.
    pub identity: Option<&'a Identity>,
}

/// Who somebody is, as the application has verified it. Its quota is counted by this name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity(Arc<str>);

/// The answer of the guard to one request.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Who asked.
    pub client: ClientIp,
    /// Whether the caller had found out who that is.
    pub authenticated: bool,
    /// Whether it may pass.
    pub verdict: Verdict,
    /// The quota it was counted against: `None` for an allowed client, which has none, and for a
    /// blocked one, which is not counted.
    pub quota: Option<QuotaState>,
    /// Short name of this request, in the answer and in the log.
    pub reference: Reference,
    /// When it arrived.
    pub at: Moment,
}

/// Whether a request may pass. A refusal is a verdict, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// Its address is blocked.
    Blocked(Block),
    /// Its quota is used up.
    Throttled,
}

/// A quota and what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaState {
    /// The policy's name, as headers show it.
    pub policy: Cow<'static, str>,
    /// How much is admitted.
    pub quota: Quota,
    /// What came of taking one request from it.
    pub taken: Taken,
}

/// What [`Worker::judge`] comes to.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// It is decided.
    Settled(Admission),
    /// Redis has to be asked: [`Worker::settle`].
    Unsettled(Unsettled),
}

/// A request that only Redis can decide about.
#[derive(Clone, Debug)]
pub struct Unsettled {
    admission: Admission,
    identity: Option<Identity>,
    policy: Cow<'static, str>,
    quota: Quota,
    dry_run: bool,
}

impl Unsettled {
    /// What there is to say of it until it is settled, and if its client goes away before: it was not
    /// refused.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }
}

impl Worker {
    /// Decides about one request.
    pub async fn admit(&self, request: &RequestHead<'_>, now: Moment) -> Admission {
        match self.judge(request, now) {
            Judgement::Settled(admission) => admission,
            Judgement::Unsettled(unsettled) => self.settle(unsettled).await,
        }
    }

    /// Decides about one request as far as that can be done at once: unless it would be the one look at
    /// Redis, all of it.
    pub fn judge(&self, request: &RequestHead<'_>, now: Moment) -> Judgement {
        let mut admission = self.unjudged(request, now);
        let client = admission.client;
        if client.is_proxy() {
            self.counters.of_proxy(client.degraded);
        }
        let store_now = self.guard.store_now(now);
        let lists = self.guard.lists.load();
        if lists.is_allowed(client.ip, store_now) {
            return Judgement::Settled(admission);
        }
        if let Some(block) = lists.find_block(client.ip, store_now) {
            admission.verdict = Verdict::Blocked(block);
            return Judgement::Settled(admission);
        }
        drop(lists);
        self.count(admission, request)
    }

    /// What there is to say of a request that was not judged: it was not refused.
    pub fn unjudged(&self, request: &RequestHead<'_>, now: Moment) -> Admission {
        Admission {
            client: self.guard.parts.resolver.resolve(request.peer, request.forwarded),
            authenticated: request.identity.is_some(),
            verdict: Verdict::Allowed,
            quota: None,
            reference: Reference::random(),
            at: now,
        }
    }

    /// What there is to say of a request that another process has counted and recorded, and for which it
    /// issued a pass.
    pub fn passed(&self, request: &RequestHead<'_>, passed: Passed, now: Moment) -> Admission {
        let client = self.guard.parts.resolver.resolve(request.peer, request.forwarded);
        let Passed { reference, authenticated, quota } = passed;
        Admission { client, authenticated, verdict: Verdict::Allowed, quota, reference, at: now }
    }

    /// Takes one request from the quota of an identity, or else of an address: never both.
    fn count(&self, mut admission: Admission, request: &RequestHead<'_>) -> Judgement {
        let parts = &self.guard.parts;
        let (standing, bucket) = parts.counted_as(&admission.client, request.identity);
        let applied = parts.policies.apply(standing, request.method, request.path);
        let policy = policy_name(applied.name);
        let (quota, dry_run) = (applied.quota, applied.dry_run);
        if let Some(taken) = self.limiter.take_here(applied.name, bucket, quota, admission.at) {
            self.decide(&mut admission, QuotaState { policy, quota, taken }, dry_run);
            return Judgement::Settled(admission);
        }
        let identity = request.identity.cloned();
        Judgement::Unsettled(Unsettled { admission, identity, policy, quota, dry_run })
    }

    /// Asks Redis about what [`Worker::judge`] left open.
    pub async fn settle(&self, unsettled: Unsettled) -> Admission {
        let Unsettled { mut admission, identity, policy, quota, dry_run } = unsettled;
        let (_, bucket) = self.guard.parts.counted_as(&admission.client, identity.as_ref());
        let taken = self.limiter.ask(&policy, bucket, quota, admission.at).await;
        self.decide(&mut admission, QuotaState { policy, quota, taken }, dry_run);
        admission
    }

    /// What the counting means.
    fn decide(&self, admission: &mut Admission, state: QuotaState, dry_run: bool) {
        admission.verdict = match state.taken.admitted {
            true => Verdict::Allowed,
            false if dry_run => {
                self.counters.would_limit();
                Verdict::Allowed
            }
            false => Verdict::Throttled,
        };
        admission.quota = Some(state);
    }

    /// Puts the record of a request together, as far as it is known before the answer.
    pub fn draft(
        &self,
        admission: &Admission,
        request: &RequestHead<'_>,
        user_agent: Option<&[u8]>,
    ) -> Draft {
        let path = request.path.as_bytes();
        Draft::of(&RecordRef {
            at: admission.at.wall,
            address: admission.client.ip,
            method: request.method.as_bytes(),
            path,
            status: 0,
            verdict: admission.verdict.recorded(),
            sensitive: self.guard.parts.sensitive_paths.matches(path),
            identity: request.identity.map(Identity::as_str),
            user_agent,
            reference: admission.reference,
        })
    }

    /// Puts a request into the log, and counts it. The kernel has it when this returns, so call it before
    /// the answer leaves.
    pub fn record(&self, mut draft: Draft, status: u16) {
        draft.set_status(status);
        self.counters.count(draft.verdict());
        self.spool.borrow_mut().append(draft);
    }

    /// The guard behind this worker.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }
}

impl Parts {
    /// As what somebody asks, and what is counted then.
    fn counted_as<'a>(
        &self,
        client: &ClientIp,
        identity: Option<&'a Identity>,
    ) -> (Standing, Bucket<'a>) {
        match identity {
            Some(identity) => (Standing::Authenticated, Bucket::Identity(identity.as_str())),
            None if client.is_proxy() => {
                (Standing::Proxy, Bucket::Network(Network::from(client.ip)))
            }
            None => {
                let network = Network::of_client(client.ip, self.ipv6_prefix);
                (Standing::Anonymous, Bucket::Network(network))
            }
        }
    }
}

/// The names of the defaults are static, so that the common case copies nothing.
fn policy_name(name: &str) -> Cow<'static, str> {
    match name {
        "anonymous" => Cow::Borrowed("anonymous"),
        "authenticated" => Cow::Borrowed("authenticated"),
        "proxy" => Cow::Borrowed("proxy"),
        _ => Cow::Owned(name.to_owned()),
    }
}

impl Guard {
    /// A guard with empty lists; whoever feeds it swaps them in.
    pub fn new(parts: Parts, now: Moment) -> Arc<Guard> {
        let guard = Guard {
            parts,
            lists: ArcSwap::from_pointee(Lists::empty()),
            store_clock: AtomicI64::new(0),
            counters: counters::Counters::default(),
        };
        guard.set_store_clock(now.wall, now);
        Arc::new(guard)
    }

    /// The guard as one worker thread uses it. Make it on that thread.
    pub fn worker(self: &Arc<Guard>) -> Worker {
        Worker {
            limiter: self.parts.limiter.worker(),
            spool: RefCell::new(self.parts.spool.writer()),
            counters: self.counters.of_worker(),
            guard: self.clone(),
        }
    }

    /// Swaps in other lists; requests on their way keep the ones they looked at.
    pub fn set_lists(&self, lists: Lists) {
        self.lists.store(Arc::new(lists));
    }

    /// The lists as they are now.
    pub fn lists(&self) -> Arc<Lists> {
        self.lists.load_full()
    }

    /// Says what the store's clock showed at a moment, in microseconds since the Unix epoch, UTC.
    ///
    /// From then on blocks end by it, carried forward by the steady clock: with a store that has a
    /// clock of its own, a step of this machine's ends none early and none late.
    pub fn set_store_clock(&self, store_now: i64, at: Moment) {
        let steady = i64::try_from(at.steady).unwrap_or(i64::MAX);
        self.store_clock.store(store_now.saturating_sub(steady), Ordering::Relaxed);
    }

    /// The store's clock at a moment, in microseconds since the Unix epoch, UTC.
    pub fn store_now(&self, now: Moment) -> i64 {
        let steady = i64::try_from(now.steady).unwrap_or(i64::MAX);
        self.store_clock.load(Ordering::Relaxed).saturating_add(steady)
    }

    /// The one header whose lines [`RequestHead::forwarded`] holds.
    pub fn client_ip_header(&self) -> &str {
        self.parts.resolver.header()
    }

    /// Finds the client behind trusted proxies.
    pub fn resolver(&self) -> &ClientIpResolver {
        &self.parts.resolver
    }

    /// What counts.
    pub fn limiter(&self) -> &Limiter {
        &self.parts.limiter
    }

    /// Forgets what is counted of the clients in `network`. Returns the keys under which Redis, if it
    /// counts, holds the rest; none for a network of more than 256 clients, whose quotas end by themselves.
    pub fn forget(&self, network: Network) -> Vec<String> {
        let parts = &self.parts;
        let clients = network.clients(parts.ipv6_prefix, MOST_CLIENTS);
        for client in &clients {
            parts.limiter.forget(client);
        }
        if clients.is_empty() {
            parts.limiter.forget(&network);
        }
        let key_of = |client| {
            let policies = parts.policies.of_addresses();
            policies.map(move |name| redis_key(name, Bucket::Network(client)))
        };
        clients.into_iter().flat_map(key_of).collect()
    }

    /// Where records wait to be shipped.
    pub fn spool(&self) -> &Spool {
        &self.parts.spool
    }

    /// How often each verdict was given since the start.
    pub fn counts(&self) -> Counts {
        self.counters.sum()
    }
}

impl Verdict {
    /// The word for it in the log.
    pub fn recorded(&self) -> RecordVerdict {
        match self {
            Verdict::Allowed => RecordVerdict::Allowed,
            Verdict::Blocked(_) => RecordVerdict::Blocked,
            Verdict::Throttled => RecordVerdict::Throttled,
        }
    }
}

impl QuotaState {
    /// How long until there is more.
    pub fn frees_in(&self) -> Duration {
        self.taken.frees_in
    }
}

impl Identity {
    /// An identity by its name, such as `key:4f2a`.
    pub fn new(name: impl Into<Arc<str>>) -> Identity {
        Identity(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests;
