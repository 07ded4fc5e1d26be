//! The offline checker: answers given against records stored.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::FutureExt as _;
use ipwarden_core::db::Db;
use ipwarden_core::db::request_logs::{self, Filter};

use super::common::eventually;
use super::load::{Outcome, Shot};

/// What became of a load, by kind.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By status.
    pub(crate) answers: HashMap<u16, usize>,
    /// The references of all answers.
    pub(crate) references: Vec<String>,
    pub(crate) unsent: usize,
    /// Why.
    pub(crate) lost: Vec<String>,
}

impl Tally {
    pub(crate) fn of(shots: &[Shot]) -> Tally {
        let mut tally = Tally::default();
        for shot in shots {
            match &shot.outcome {
                Outcome::Answered { status, reference } => {
                    *tally.answers.entry(*status).or_default() += 1;
                    assert!(!reference.is_empty(), "an answer {status} without a reference");
                    tally.references.push(reference.clone());
                }
                Outcome::Unsent => tally.unsent += 1,
                Outcome::Lost(why) => tally.lost.push(format!("{}: {why}", shot.client)),
            }
        }
        tally
    }

    /// Every request was answered, with none of the server's own errors.
    pub(crate) fn assert_none_failed(&self) {
        assert_eq!((self.unsent, &self.lost), (0, &Vec::new()), "requests without an answer");
        self.assert_no_server_error();
    }

    pub(crate) fn assert_no_server_error(&self) {
        let expected = |status: &u16| [200, 403, 429].contains(status);
        assert!(self.answers.keys().all(expected), "{:?}", self.answers);
    }
}

/// How often each reference is in the log.
pub(crate) async fn logged(db: &Db) -> HashMap<String, u32> {
    let mut logged: HashMap<String, u32> = HashMap::new();
    let mut after = None;
    loop {
        let page = db.run(move |conn| {
            async move { request_logs::page(conn, &Filter::default(), after, 5_000).await }.boxed()
        });
        let page = page.await.expect("the store answers");
        let Some(last) = page.last() else { return logged };
        after = Some((last.at, last.id));
        for row in page {
            *logged.entry(row.reference.expect("each has one")).or_default() += 1;
        }
    }
}

/// Waits until every answer is in the log; each must be there once. Returns how long it took, and how
/// many there are that nobody got an answer to.
pub(crate) async fn each_is_logged_once(
    db: &Db,
    references: &[String],
    within: Duration,
) -> (Duration, usize) {
    let ((), took) = eventually(within, "every answered request is in the log", async || {
        // Counted first: to read all of a long log takes seconds.
        let rows = db.run(|conn| request_logs::count(conn).boxed()).await.ok()?;
        if usize::try_from(rows).is_ok_and(|rows| rows < references.len()) {
            return None;
        }
        let logged = logged(db).await;
        let missing = references.iter().filter(|reference| !logged.contains_key(*reference));
        (missing.count() == 0).then_some(())
    })
    .await;
    let logged = logged(db).await;
    let twice: Vec<_> = logged.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "more than once in the log: {twice:?}");
    (took, logged.len() - references.len())
}

/// How many requests of each client were admitted.
pub(crate) fn admitted(shots: &[Shot]) -> HashMap<Ipv4Addr, u64> {
    most_within(shots, Duration::MAX)
}

/// How many of each client were admitted within one span of this length, at most: from before the
/// first of them was sent until after the last was answered, so that none is counted that a faster
/// clock might have left out.
pub(crate) fn most_within(shots: &[Shot], span: Duration) -> HashMap<Ipv4Addr, u64> {
    let mut admissions: HashMap<Ipv4Addr, Vec<&Shot>> = HashMap::new();
    for shot in shots {
        let of_client = admissions.entry(shot.client).or_default();
        if matches!(shot.outcome, Outcome::Answered { status: 200, .. }) {
            of_client.push(shot);
        }
    }
    let most = |mut admitted: Vec<&Shot>| {
        admitted.sort_by_key(|shot| shot.sent);
        let (mut first, mut most) = (0, 0);
        for (last, shot) in admitted.iter().enumerate() {
            while (shot.sent + shot.took).duration_since(admitted[first].sent) >= span
                && first < last
            {
                first += 1;
            }
            most = most.max(last - first + 1);
        }
        most as u64
    };
    admissions.into_iter().map(|(client, admitted)| (client, most(admitted))).collect()
}

/// The time below which this share of them is, in hundredths; zero if there are none.
pub(crate) fn percentile(shots: &[Shot], hundredths: usize) -> Duration {
    let mut times: Vec<Duration> = shots.iter().map(|shot| shot.took).collect();
    times.sort_unstable();
    times.get(times.len() * hundredths / 100).copied().unwrap_or_default()
}
