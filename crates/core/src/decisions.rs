//! Decisions: what the blocklist asks others to enforce, in memory, for those who ask all the time.
//!
//! The guard's own lists know networks and ends, which is all that it needs. A bouncer also wants to know
//! which row decides, of which origin and why, so [`Decisions`] holds the rows themselves, but only
//! in a process that knows a bouncer's key. It follows `list_changes` as the lists do, and
//! stays as it is while the store is away: blocks in it still end.
//!
//! A *decision* is about a network, its value. Of several rows of one network the one that ends last
//! decides. No decision ever holds an allowed address: a block that lies within an allowed network is
//! none, and one around allowed networks is as many decisions as it has largest parts without them
//! ([`book`](self)). So what a value stands for can change without its own row changing, which is why a
//! change of the allowlist leads to news about blocks as well.

mod book;
mod filter;
mod news;
mod parts;
mod pull;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::changes::Feed;
use crate::db::{Db, DbError};
use crate::keys::{Keys, Role};

use self::book::Book;
pub use self::filter::{Filter, Scope};
use self::news::News;
pub use self::pull::{Pull, pull};

/// How long reading everything may take: a million rows are some seconds.
const LOAD_LIMIT: Duration = Duration::from_secs(60);

/// Why a network is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cause {
    /// `manual`, `scan`, `import`, `list:NAME`.
    pub origin: Box<str>,
    /// In somebody's words; may be empty.
    pub reason: Box<str>,
}

/// That a network is to be kept out.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Of the row that decides, or of this part of it: the same for as long as it stands.
    pub id: i64,
    /// Whom it is about.
    pub value: Network,
    /// When it ends, in microseconds since the Unix epoch by the store's clock; `None` never ends.
    pub ends: Option<i64>,
    /// Why.
    pub cause: Arc<Cause>,
}

impl Decision {
    /// A name that no other decision has, of the form of RFC 9562 (version 8).
    pub fn uuid(&self) -> String {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = digest(self.id, &self.value);
        let (g, i) = (g & 0x0f | 0x80, i & 0x3f | 0x80);
        format!(
            "{a:02x}{b:02x}{c:02x}{d:02x}-{e:02x}{f:02x}-{g:02x}{h:02x}-{i:02x}{j:02x}-\
             {k:02x}{l:02x}{m:02x}{n:02x}{o:02x}{p:02x}"
        )
    }
}

fn digest(id: i64, value: &Network) -> [u8; 16] {
    let (first, _) = value.first_last();
    let mut digest = Sha256::new();
    digest.update(id.to_be_bytes());
    digest.update(first.to_be_bytes());
    digest.update([value.prefix(), value.is_ipv6().into()]);
    let mut half = [0; 16];
    half.copy_from_slice(&digest.finalize()[..16]);
    half
}

/// The decisions in force. Nothing is held until [`Decisions::refresh`].
pub struct Decisions {
    db: Db,
    book: Arc<RwLock<Book>>,
    /// Who reads the store does so alone.
    turn: tokio::sync::Mutex<()>,
}

impl Decisions {
    /// None yet, of this store.
    pub fn of(db: Db) -> Decisions {
        Decisions { db, book: Arc::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The version of the lists that they are as good as; `None` while nothing is held.
    pub fn version(&self) -> Option<i64> {
        self.book.read().version
    }

    /// Brings them up to date with the store. Returns the version that they are at.
    ///
    /// # Errors
    /// The store's; then they stay as they were.
    pub async fn refresh(&self, now: DateTime<Utc>) -> Result<i64, DbError> {
        let _turn = self.turn.lock().await;
        let held = self.version();
        let db = match held {
            Some(_) => self.db.clone(),
            None => self.db.with_timeout(LOAD_LIMIT),
        };
        let news = match db.run(move |conn| news::since(conn, held, now).boxed()).await? {
            Some(news) => news,
            None => {
                let patient = self.db.with_timeout(LOAD_LIMIT);
                patient.run(move |conn| news::everything(conn, now).boxed()).await?
            }
        };
        self.take_in(news).await
    }

    /// Returns the version of the news.
    async fn take_in(&self, news: News) -> Result<i64, DbError> {
        match news {
            News::Nothing { version } => Ok(version),
            News::Since { version, blocked, allowed } => {
                self.book.write().apply(version, blocked, allowed);
                Ok(version)
            }
            News::Whole { version, blocked, allowed } => {
                let book = self.book.clone();
                // A million rows are sorted for a second; whoever looks something up meanwhile may.
                let built = tokio::task::spawn_blocking(move || {
                    let fresh = Book::of(version, blocked, allowed, &book.read());
                    let before = std::mem::replace(&mut *book.write(), fresh);
                    drop(before);
                });
                built
                    .await
                    .map_err(|_| DbError::Unreachable("reading was cut short".to_owned()))?;
                Ok(version)
            }
        }
    }

    /// Forgets why anything within `network` was blocked that is not any more; without one, of everything.
    pub fn forget_ended(&self, network: Option<Network>) {
        self.book.write().forget_ended(network);
    }

    /// Lets go of them: nobody asks any more.
    pub fn forget(&self) {
        if self.version().is_some() {
            *self.book.write() = Book::default();
        }
    }

    /// The decisions that hold all of `network`, the strongest first: the one that ends last, and of two
    /// that end together the narrower. The cost does not depend on how many there are.
    pub fn holding(&self, network: Network, filter: &Filter, store_now: i64) -> Vec<Decision> {
        self.book.read().holding(network, filter, store_now)
    }

    /// The decisions about what lies inside `network`, itself included, by value.
    pub fn inside(&self, network: Network, filter: &Filter, store_now: i64) -> Vec<Decision> {
        self.book.read().inside(network, filter, store_now)
    }

    /// The decision about exactly this value.
    pub fn about(&self, value: Network, filter: &Filter, store_now: i64) -> Option<Decision> {
        self.book.read().about(value, filter, store_now)
    }

    /// The decisions of up to `blocks` blocks behind `after`, by value, and behind which block to go on;
    /// `None` when there are no more.
    ///
    /// Pages do not hold anybody up who changes something meanwhile. Who wants to miss nothing reads
    /// [`Decisions::version`] before the first page, and asks for what changed since then.
    pub fn page(
        &self,
        after: Option<Network>,
        blocks: usize,
        filter: &Filter,
        store_now: i64,
    ) -> (Vec<Decision>, Option<Network>) {
        self.book.read().page(after, blocks, filter, store_now)
    }

    /// What a value was last blocked for, as far as this process knows: one decision for each origin.
    pub fn ended(&self, value: Network) -> Vec<Decision> {
        self.book.read().ended(value)
    }
}

/// Keeps the decisions current for as long as there is a key of a bouncer, until `stop`.
///
/// This is an entry point: it reads the clock.
pub async fn follow(
    decisions: Arc<Decisions>,
    keys: Arc<Keys>,
    feed: Feed,
    stop: CancellationToken,
) {
    let mut status = feed.status();
    loop {
        let wanted = status.borrow_and_update().version;
        if !keys.any_of(Role::Bouncer) {
            decisions.forget();
        } else if decisions.version() != Some(wanted) {
            let now = DateTime::from_timestamp_micros(Moment::now().wall).unwrap_or_default();
            if let Err(error) = decisions.refresh(now).await {
                tracing::debug!(%error, "the decisions for bouncers stay as they were");
            }
        }
        // The feeder says every second or oftener that it has asked.
        tokio::select! {
            () = stop.cancelled() => return,
            alive = status.changed() => if alive.is_err() { return },
        }
    }
}
