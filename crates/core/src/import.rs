//! Brings access logs of other servers into the request log, as ordinary rows with the verdict `allowed`.
//!
//! Promises: a line goes in once, however often its file is given, packed or plain, grown or not; a
//! kill at any moment loses nothing and doubles nothing, because how far the file was read is
//! written in the transaction of the rows that were read. Lines that cannot be read stop nothing.
//!
//! Sameness is a line's number in a file whose uncompressed bytes up to there are the same. So a
//! file is read twice: once, as far as any earlier import came, to find out what is known of it, and
//! then for good. Equal lines within one file are different requests.
//!
//! Does not scan: the hours that an import touches are noted with its rows, and
//! [`scan::run_touched`](crate::scan::run_touched) judges them.

mod follow;
mod input;
mod reader;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use ipwarden_engine::record::Record;
use ipwarden_engine::sensitive_path::SensitivePaths;
use tokio::sync::oneshot;

use self::follow::Following;
pub use self::follow::follow;
pub use self::input::Input;
use self::reader::{Batch, Reading};
use crate::access_log::{LineError, Mark, longest_known};
use crate::db::leases::{self, Lease};
use crate::db::request_logs::{self, NewLogged, UnderWay};
use crate::db::{Db, DbError, imports};
use crate::geo::{Geo, Place};

/// The `node` of imported records.
pub const NODE: &str = "import";

/// The name of the lease that an import needs: two that read the same file at once would both find
/// it unknown.
const LEASE: &str = "import";

/// How long an import that was killed keeps the next one waiting.
const LEASE_TTL: TimeDelta = TimeDelta::seconds(30);

/// How many of the unreadable lines are told.
const TOLD: usize = 10;

/// Why an import stopped. What was written before stays, and the next try goes on there.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read at all.
    #[error("{name}: {cause}")]
    Unreadable {
        /// What was to be read.
        name: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Its beginning is no longer what it was a moment ago.
    #[error("{0} changed while it was read: try again")]
    Changed(String),
    /// It was imported before, and no longer begins as it did then.
    #[error(
        "{0} was taken over before, and rows of then are gone or others now: to take the rest would \
         double what is here"
    )]
    Otherwise(String),
    /// One import at a time.
    #[error("`{holder}` is importing; if that was stopped, try again at {until}")]
    Busy {
        /// Who.
        holder: String,
        /// When its lease ends.
        until: DateTime<Utc>,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] DbError),
}

/// How far an import has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the file, as it is packed.
    pub read_bytes: u64,
    /// All its bytes.
    pub total_bytes: u64,
    /// Records that are in the store.
    pub records: u64,
}

/// What came of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Records that were added.
    pub records: u64,
    /// Lines at the beginning that were known.
    pub known_lines: u64,
    /// Lines that could not be read.
    pub unreadable: u64,
    /// The first of them.
    pub told: Vec<LineError>,
    /// The oldest and the newest of the added records.
    pub span: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Why the file ended before its end, as a gzip file does that was cut off.
    pub cut_short: Option<String>,
}

/// What an import needs beside its file.
pub struct Importer<'a> {
    /// Where the records go.
    pub db: &'a Db,
    /// Where their addresses are.
    pub geo: &'a Geo,
    /// Which paths are sensitive.
    pub sensitive: Arc<SensitivePaths>,
    /// Who imports: `cli:USER`.
    pub by: &'a str,
}

/// Imports one access log and reports on the way. The clock is asked once per batch.
///
/// # Errors
/// [`ImportError`]; lines that cannot be read are none.
pub async fn import(
    with: &Importer<'_>,
    input: Input,
    clock: impl Fn() -> DateTime<Utc>,
    mut report: impl FnMut(Progress),
) -> Result<Imported, ImportError> {
    let lease = take_lease(with, clock()).await?;
    let outcome = import_under(with, &lease, input, None, &clock, &mut report).await;
    give_back(with, lease, clock()).await;
    outcome
}

async fn give_back(with: &Importer<'_>, lease: Lease, now: DateTime<Utc>) {
    let released = with.db.run(move |conn| {
        async move {
            let store_now = conn.clock(now).await?;
            leases::release(conn, &lease, store_now).await
        }
        .boxed()
    });
    if let Err(error) = released.await {
        // It ends by itself.
        tracing::debug!(%error, "the lease of the import was not given back");
    }
}

/// Reads a log without recording anything: what an import of it would find, if nothing of it were known.
///
/// # Errors
/// When it cannot be read at all.
pub fn look(input: &Input, report: impl FnMut(u64)) -> io::Result<Imported> {
    let mut imported = Imported::default();
    reader::look(input, |batch| imported.join(Imported::of(batch)), report)?;
    Ok(imported)
}

async fn import_under(
    with: &Importer<'_>,
    lease: &Lease,
    input: Input,
    following: Option<Following>,
    clock: &impl Fn() -> DateTime<Utc>,
    report: &mut impl FnMut(Progress),
) -> Result<Imported, ImportError> {
    let name = input.name().to_owned();
    let marks = with.db.run(|conn| imports::marks(conn).boxed()).await?;
    let found = find_known(input, marks).await;
    let (input, known) =
        found.map_err(|cause| ImportError::Unreadable { name: name.clone(), cause })?;

    if known.is_none() && input.is_continued() {
        let source = name.clone();
        let asked =
            with.db.run(move |conn| async move { imports::has(conn, &source).await }.boxed());
        if asked.await? {
            return Err(ImportError::Otherwise(name));
        }
    }
    let mut imported =
        Imported { known_lines: known.map_or(0, |mark| mark.lines), ..Imported::default() };
    let total_bytes = input.bytes();
    let mut reading = reader::start(input, known, with.sensitive.clone(), following);
    let mut writing = Writing { with, lease, name: &name, id: None, started_at: clock() };
    let mut next = ready(with, &name, &mut reading, clock()).await;
    while let Some(batch) = next {
        let Ready { found, mark, read_bytes, rows } = batch?;
        imported.join(found);
        let progress = Progress { read_bytes, total_bytes, records: imported.records };
        let (under_way, is_under_way) = oneshot::channel();
        let write = async {
            writing.write(mark, rows, &imported, clock(), under_way).await?;
            report(progress);
            Ok::<_, ImportError>(())
        };
        // The next is turned into rows while this one is written; an error of its reading is told in its turn.
        let ahead = async {
            let _ = is_under_way.await;
            Ok(ready(with, &name, &mut reading, clock()).await)
        };
        ((), next) = tokio::try_join!(write, ahead)?;
    }
    writing.finish(clock()).await?;
    Ok(imported)
}

/// A batch that can be written.
struct Ready {
    /// What it adds.
    found: Imported,
    mark: Option<Mark>,
    read_bytes: u64,
    rows: Vec<NewLogged>,
}

/// The next batch, with the places of its addresses; `None` at the end of the file, which is called `name`.
async fn ready(
    with: &Importer<'_>,
    name: &str,
    reading: &mut Reading,
    now: DateTime<Utc>,
) -> Option<Result<Ready, ImportError>> {
    let batch = match reading.next().await? {
        Ok(Some(batch)) => batch,
        Ok(None) => return Some(Err(ImportError::Changed(name.to_owned()))),
        Err(cause) => return Some(Err(ImportError::Unreadable { name: name.to_owned(), cause })),
    };
    let found = Imported::of(&batch);
    let Batch { records, places: told, mark, read_bytes, .. } = batch;
    let addresses: Vec<IpAddr> = records.iter().map(|record| record.address).collect();
    let places = with.geo.places(&addresses, now).await;
    let node: Arc<str> = NODE.into();
    let rows = records
        .into_iter()
        .zip(told.into_iter().zip(places))
        .map(|(record, (told, found))| row(record, told.unwrap_or(found), node.clone(), now))
        .collect();
    Some(Ok(Ready { found, mark, read_bytes, rows }))
}

impl Imported {
    /// What one batch adds.
    fn of(batch: &Batch) -> Imported {
        let instants = || batch.records.iter().map(|record| record.at);
        Imported {
            records: batch.records.len() as u64,
            known_lines: 0,
            unreadable: batch.unreadable,
            told: batch.told.clone(),
            span: instants()
                .min()
                .zip(instants().max())
                .map(|(first, last)| (instant(first), instant(last))),
            cut_short: batch.cut_short.clone(),
        }
    }

    /// What came of one part after the other.
    fn join(&mut self, next: Imported) {
        self.records += next.records;
        self.known_lines += next.known_lines;
        self.unreadable += next.unreadable;
        let room = TOLD - self.told.len();
        self.told.extend(next.told.into_iter().take(room));
        self.cut_short = next.cut_short;
        self.span = match (self.span, next.span) {
            (Some((first, last)), Some((from, to))) => Some((first.min(from), last.max(to))),
            (one, other) => one.or(other),
        };
    }
}

/// The row of `imports` that grows with the log.
struct Writing<'a> {
    with: &'a Importer<'a>,
    lease: &'a Lease,
    name: &'a str,
    /// `None` until there is something to remember.
    id: Option<i64>,
    started_at: DateTime<Utc>,
}

impl Writing<'_> {
    async fn write(
        &mut self,
        mark: Option<Mark>,
        mut rows: Vec<NewLogged>,
        so_far: &Imported,
        now: DateTime<Utc>,
        under_way: UnderWay,
    ) -> Result<(), ImportError> {
        let Some(mark) = mark else { return self.stay(now).await };
        let progress =
            imports::Progress { mark, records: so_far.records, unreadable: so_far.unreadable };
        // Only now: whoever follows the log relies on a row being there soon after its recorded_at.
        let recorded_at = self.with.db.clock(now).await?;
        for row in &mut rows {
            row.recorded_at = recorded_at;
        }
        let step = imports::Step {
            lease: self.lease.clone(),
            id: self.id,
            source: self.name.to_owned(),
            created_by: self.with.by.to_owned(),
            started_at: self.started_at,
            progress,
            now,
        };
        self.id = Some(request_logs::write_telling(self.with.db, rows, step, under_way).await?);
        Ok(())
    }

    /// Keeps the lease while there is nothing to write.
    async fn stay(&self, now: DateTime<Utc>) -> Result<(), ImportError> {
        let lease = self.lease.clone();
        let renewed = self.with.db.transaction(move |conn| {
            async move {
                let store_now = conn.clock(now).await?;
                leases::renew(conn, &lease, store_now).await
            }
            .boxed()
        });
        Ok(renewed.await.map(drop)?)
    }

    async fn finish(&self, now: DateTime<Utc>) -> Result<(), ImportError> {
        let Some(id) = self.id else { return Ok(()) };
        Ok(self.with.db.run(move |conn| imports::finish(conn, id, now).boxed()).await?)
    }
}

fn row(record: Record, place: Place, node: Arc<str>, now: DateTime<Utc>) -> NewLogged {
    NewLogged {
        at: instant(record.at),
        address: record.address,
        method: record.method,
        path: record.path,
        // Three digits at most.
        status: i16::try_from(record.status).unwrap_or(0),
        verdict: record.verdict.as_str(),
        sensitive: record.sensitive,
        identity: record.identity,
        country: place.country.map(|country| country.to_string()),
        city: place.city.map(|city| city.to_string()),
        asn: place.asn.map(i64::from),
        user_agent: record.user_agent,
        // No answer of ours carried one.
        reference: None,
        node,
        // Until it is written.
        recorded_at: now,
    }
}

fn instant(microseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(microseconds).expect("a date of four digits is within range")
}

async fn take_lease(with: &Importer<'_>, now: DateTime<Utc>) -> Result<Lease, ImportError> {
    let holder = with.by.to_owned();
    let taken = with
        .db
        .transaction(move |conn| {
            async move {
                let store_now = conn.clock(now).await?;
                let lease = leases::acquire(conn, LEASE, &holder, LEASE_TTL, store_now).await?;
                let held = leases::holder(conn, LEASE, store_now).await?;
                Ok((lease, held))
            }
            .boxed()
        })
        .await?;
    match taken {
        (Some(lease), _) => Ok(lease),
        (None, Some((holder, until))) => Err(ImportError::Busy { holder, until }),
        (None, None) => Err(DbError::Conflict("the lease `import` is gone".to_owned()).into()),
    }
}

/// Blocks elsewhere: a large file takes seconds.
async fn find_known(input: Input, marks: Vec<Mark>) -> io::Result<(Input, Option<Mark>)> {
    if marks.is_empty() {
        return Ok((input, None));
    }
    tokio::task::spawn_blocking(move || {
        let known = longest_known(input.rewound()?, marks)?;
        Ok((input, known))
    })
    .await
    .unwrap_or_else(|panic| Err(io::Error::other(panic)))
}
