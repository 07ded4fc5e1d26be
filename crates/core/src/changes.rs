//! Carries changes of the lists from the store to the guard: the circle closes here.
//!
//! A [`Feeder`] holds what both lists come to, network by network, as the store had it at one version.
//! It asks the store for what came after, makes new [`Lists`] of it and hands them to whoever decides.
//! Three things keep it true: a poll every second (with SQLite a look every 250 ms at whether anybody
//! committed) makes it certain, a hint over Redis makes it quick, and whatever does not follow on
//! (a gap, a store set back) makes it load everything again.
//!
//! It also keeps the copy on disk, and tells the guard what the store's clock shows, because blocks end
//! by that. A restart begins with the copy: without its store it still blocks, and with it only what has
//! changed since is asked for, once the last change in the copy was found to be one of this store's.
//!
//! What is deliberately absent: it changes nothing in the store, prunes nothing, and never
//! takes lists away: without a store the last ones stay in force, and blocks in them still end.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::blocklist::Lists;
use ipwarden_engine::blocklist::disk::Snapshot;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::Guard;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::db::{Db, DbError};

mod copy;
mod follow;
mod held;
mod hints;
mod impatient;
mod news;
#[cfg(test)]
mod tests;

pub use copy::Copy;
pub use hints::{CHANNEL, announce};

use held::Held;
use news::{Answer, News};

/// The name of the copy of the lists in `data_dir`.
pub const COPY: &str = "lists.snapshot";

/// Where the lists in force come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// There are none yet: not ready to decide about anybody.
    None,
    /// From the copy on disk; the store has not answered since the start.
    Disk,
    /// From the store.
    Store,
}

/// How the lists in force stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Where they come from.
    pub source: Source,
    /// The version of the store that they are as good as; that of the [`Lists`] themselves stays
    /// behind while changes change nothing in them.
    pub version: i64,
    /// How many networks are blocked, including what has ended and was not pruned yet.
    pub blocked: usize,
    /// How many networks are allowed, likewise.
    pub allowed: usize,
    /// The version that the copy on disk is as good as; 0 if nobody has looked since the start.
    pub copied: i64,
    /// When the store last said that they are current, by this machine's clock.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// Why the store could not be asked the last time; `None` while it answers.
    pub trouble: Option<String>,
}

/// What a [`Feeder`] shows, and how to hurry it. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    status: watch::Receiver<Status>,
    keys: watch::Receiver<i64>,
    forget: watch::Receiver<i64>,
    nudge: Arc<Notify>,
}

impl Feed {
    /// How the lists in force stand.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The version at which API keys or users last changed, or may have; whoever keeps them in memory
    /// reloads them when this moves.
    pub fn keys(&self) -> watch::Receiver<i64> {
        self.keys.clone()
    }

    /// The version at which something was last to be forgotten, or may have been.
    pub fn forget(&self) -> watch::Receiver<i64> {
        self.forget.clone()
    }

    /// Has the store asked at once: this process changed a list itself.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }
}

/// Follows the store and feeds the guard.
pub struct Feeder {
    db: Db,
    publish: Box<dyn Fn(Lists) + Send + Sync>,
    set_clock: Box<dyn Fn(i64, Moment) + Send + Sync>,
    copy: Copy,
    /// What the lists come to; only blocking threads lock it.
    held: Arc<Mutex<Held>>,
    /// The version that `held` is at, or beyond when a step was cut short: changes may be taken in
    /// twice. `None` when everything has to be loaded.
    version: Option<i64>,
    /// What building the lists took the last time; nothing if there was nothing to build.
    built_in: Duration,
    /// When the change of that version was made, in microseconds since the Unix epoch; 0 if unknown.
    made: i64,
    /// `held` is of the copy on disk, and the store has not said yet that it knows it.
    of_copy: bool,
    /// What `held` is to be filled from.
    unfilled: Option<Snapshot>,
    /// `held` is being filled.
    filling: Option<JoinHandle<()>>,
    status: watch::Sender<Status>,
    keys: watch::Sender<i64>,
    forget: watch::Sender<i64>,
    nudge: Arc<Notify>,
}

impl Feeder {
    /// A feeder of `guard`; `copy` outlives the store.
    pub fn of(guard: Arc<Guard>, db: Db, copy: Copy) -> Feeder {
        let clock = guard.clone();
        Feeder::new(
            db,
            copy,
            move |lists| guard.set_lists(lists),
            move |store_now, at| clock.set_store_clock(store_now, at),
        )
    }

    /// A feeder that gives new lists to `publish`, and to `set_clock` what the store's clock showed (in
    /// microseconds since the Unix epoch) at a moment of this machine's.
    pub fn new(
        db: Db,
        copy: Copy,
        publish: impl Fn(Lists) + Send + Sync + 'static,
        set_clock: impl Fn(i64, Moment) + Send + Sync + 'static,
    ) -> Feeder {
        let none = Status {
            source: Source::None,
            version: 0,
            blocked: 0,
            allowed: 0,
            copied: 0,
            confirmed_at: None,
            trouble: None,
        };
        Feeder {
            db,
            publish: Box::new(publish),
            set_clock: Box::new(set_clock),
            copy,
            held: Arc::default(),
            version: None,
            built_in: Duration::ZERO,
            made: 0,
            of_copy: false,
            unfilled: None,
            filling: None,
            status: watch::Sender::new(none),
            keys: watch::Sender::new(0),
            forget: watch::Sender::new(0),
            nudge: Arc::default(),
        }
    }

    /// A view of this feeder, for as long as anybody likes.
    pub fn feed(&self) -> Feed {
        Feed {
            status: self.status.subscribe(),
            keys: self.keys.subscribe(),
            forget: self.forget.subscribe(),
            nudge: self.nudge.clone(),
        }
    }

    /// Puts the copy on disk into force, if there is one and nothing from the store yet. A damaged
    /// one is ignored, and the log says so.
    pub async fn load_copy(&mut self) {
        if self.status.borrow().source != Source::None {
            return;
        }
        let Some((lists, snapshot)) = self.copy.load().await else { return };
        let (blocked, allowed) = snapshot.counts();
        self.status.send_modify(|status| {
            status.source = Source::Disk;
            status.version = lists.version;
            status.blocked = blocked;
            status.allowed = allowed;
        });
        tracing::info!(version = lists.version, blocked, allowed, "lists loaded from the disk");
        (self.publish)(lists);
        (self.version, self.made) = (Some(snapshot.version()), snapshot.made());
        self.of_copy = true;
        self.unfilled = Some(snapshot);
    }

    /// Begins to fill `held` from the copy. Decisions need nothing of it, only the next change does; so
    /// it does not take a core from what a start waits for.
    fn fill(&mut self) {
        let Some(snapshot) = self.unfilled.take() else { return };
        let held = self.held.clone();
        self.filling = Some(tokio::task::spawn_blocking(move || {
            *held.lock() = Held::of(snapshot.blocked(), snapshot.allowed());
        }));
    }

    /// Asks the store once, and puts what is new into force. Says whether anything was.
    ///
    /// # Errors
    /// The store's; the lists in force stay, and [`Status::trouble`] says why.
    pub async fn refresh(&mut self, now: Moment) -> Result<bool, DbError> {
        let asked = self.ask(now).await;
        match asked {
            Ok(answer) => {
                let fresh = match answer {
                    Answer::Nothing => {
                        self.adopt_copy();
                        false
                    }
                    Answer::News(news) => self.take_in(news, now).await,
                };
                self.of_copy = false;
                self.confirm(now);
                Ok(fresh)
            }
            Err(error) => {
                self.admit_trouble(&error);
                Err(error)
            }
        }
    }

    async fn ask(&self, now: Moment) -> Result<Answer, DbError> {
        let (version, now) = (self.version, date(now));
        if let Some(version) = version {
            if self.is_known(version).await?
                && let Some(answer) = impatient::since(&self.db, version, now).await?
            {
                return Ok(answer);
            }
            tracing::info!(version, "the changes do not follow on: loading the lists whole");
        }
        let patient = self.db.with_timeout(news::LOAD_LIMIT);
        patient.run(move |conn| news::everything(conn, now).boxed()).await
    }

    /// Whether the lists at this version are the store's; only those of a copy are in doubt.
    async fn is_known(&self, version: i64) -> Result<bool, DbError> {
        let made = self.made;
        match self.of_copy {
            true => self.db.run(move |conn| news::is_of(conn, version, made).boxed()).await,
            false => Ok(true),
        }
    }

    /// Takes in what the store said; says whether new lists are in force.
    async fn take_in(&mut self, news: News, now: Moment) -> bool {
        let (version, keys, forget) = (news.version, news.keys, news.forget);
        let made = news.made.map_or(0, |made| made.timestamp_micros());
        let applied = match news.is_of_lists() {
            true => self.apply(news).await,
            // A key or a user: `held` may be being filled, and nobody has to wait for that.
            false => Ok(false),
        };
        let fresh = match applied {
            Ok(fresh) => fresh,
            Err(what) => {
                tracing::error!("{what} was cut short; the lists are loaded whole");
                self.version = None;
                return false;
            }
        };
        (self.version, self.made) = (Some(version), made);
        self.status.send_modify(|status| {
            status.source = Source::Store;
            status.version = version;
        });
        if keys {
            self.keys.send_replace(version);
        }
        if forget {
            self.forget.send_replace(version);
        }
        self.save_copy_if_due(now).await;
        fresh
    }

    /// Builds new lists and puts them into force; says whether there were any, or what was cut short.
    async fn apply(&mut self, news: News) -> Result<bool, &'static str> {
        let (version, whole) = (news.version, self.version.is_none());
        self.fill();
        if let Some(filling) = self.filling.take() {
            filling.await.map_err(|_| "reading the copy")?;
        }
        let held = self.held.clone();
        let built = tokio::task::spawn_blocking(move || {
            let (mut held, began) = (held.lock(), Moment::now());
            let changed = held.apply(news);
            let lists = (changed || whole).then(|| held.lists(version));
            let built_in = Duration::from_micros(Moment::now().steady - began.steady);
            (lists, held.counts(), built_in)
        });
        let (lists, (blocked, allowed), built_in) =
            built.await.map_err(|_| "building the lists")?;
        self.built_in = built_in;
        let fresh = lists.is_some();
        if let Some(lists) = lists {
            (self.publish)(lists);
            tracing::debug!(version, blocked, allowed, "lists in force");
            self.copy.outdated();
        }
        self.status.send_modify(|status| {
            status.blocked = blocked;
            status.allowed = allowed;
        });
        Ok(fresh)
    }

    /// Writes the copy on disk, unless it is current or was written just now; says when it is there.
    async fn save_copy_if_due(&mut self, now: Moment) {
        if let Some(version) = self.version
            && self.copy.is_due(now)
        {
            self.copy.save(self.held.clone(), (version, self.made), now).await;
        }
        if let Some(version) = self.version
            && self.copy.is_written()
        {
            self.status.send_if_modified(|status| {
                std::mem::replace(&mut status.copied, version) != version
            });
        }
    }

    /// The store has nothing newer than the copy on disk: it is as good as the store.
    fn adopt_copy(&self) {
        self.status.send_if_modified(|status| {
            let of_copy = status.source == Source::Disk;
            if of_copy {
                status.source = Source::Store;
            }
            of_copy
        });
    }

    fn confirm(&self, now: Moment) {
        let mut recovered = false;
        self.status.send_modify(|status| {
            status.confirmed_at = Some(date(now));
            recovered = status.trouble.take().is_some();
        });
        if recovered {
            tracing::info!("the store answers again; the lists are current");
        }
    }

    fn admit_trouble(&self, error: &DbError) {
        let text = error.to_string();
        self.status.send_if_modified(|status| {
            if status.trouble.is_none() {
                tracing::warn!(error = %text, "the lists cannot be refreshed; the last ones stay in force");
            }
            let changed = status.trouble.as_ref() != Some(&text);
            status.trouble = Some(text.clone());
            changed
        });
    }
}

/// The wall clock of a moment.
fn date(now: Moment) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(now.wall).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
