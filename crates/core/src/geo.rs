//! Where an address is: country, city, autonomous system.
//!
//! Any number of MaxMind-format files answer, City, Country or ASN, nested GeoIP2 or flat schema,
//! IPv4 and IPv6 together or side by side. What they answered is good for 24 hours: first in this
//! process, then in Redis for all replicas, then the files are asked again. Changed files are taken
//! up without a restart, and one that cannot be used leaves the earlier one in use.
//!
//! What it deliberately does not do: fail. Without files, with bad ones, without Redis an address is
//! merely at an unknown [`Place`]. It downloads nothing, and it reads no clock: `now` is an argument,
//! and the caller decides how often [`Geo::reload_if_changed`] looks.

mod copy;
mod file;
mod place;
mod record;
mod set;
mod shared;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use ipwarden_engine::network::{Network, canonical};
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use self::copy::Copies;
pub use self::file::{FileError, FileSummary, Kind};
pub use self::place::{CountryCode, MAX_CITY_CHARS, Place};
pub use self::record::Schema;
pub use self::set::BuildId;
use self::set::FileSet;
use self::shared::SharedCache;
use self::shelf::Shelf;
use crate::redis::{RedisPool, RedisPoolError};

/// How long an answer is good, in seconds: 24 hours.
pub const CACHED_SECONDS: i64 = 86_400;

/// Addresses that the process remembers, some 100 bytes each.
const PROCESS_CACHE_ENTRIES: usize = 100_000;

/// The files, and the caches before them.
pub struct Geo {
    files: ArcSwap<FileSet>,
    shelf: Mutex<Shelf>,
    cache: Cache<IpAddr, Cached>,
    shared: Option<SharedCache>,
    answered: Answered,
    trouble: AtomicUsize,
}

/// Which level answered how many look-ups since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookUps {
    /// By the process's own cache.
    pub process: u64,
    /// By Redis.
    pub redis: u64,
    /// By the files.
    pub files: u64,
    /// Round trips to Redis that failed; the files answered instead.
    pub redis_failures: u64,
}

#[derive(Default)]
struct Answered {
    process: AtomicU64,
    redis: AtomicU64,
    files: AtomicU64,
}

/// An answer that is remembered, the unknown place as well.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cached {
    place: Place,
    /// When the files were asked, in seconds since the Unix epoch.
    asked: i64,
    /// Which files were asked.
    build: BuildId,
}

impl Cached {
    /// Whether it is from these files, and of the last 24 hours.
    fn is_fresh(&self, build: BuildId, now: i64) -> bool {
        self.build == build && (0..CACHED_SECONDS).contains(&now.saturating_sub(self.asked))
    }
}

impl Geo {
    /// Opens the files at `paths`, each a file or a directory whose every `*.mmdb` counts. Files
    /// listed first answer first; in a directory City comes before Country before ASN, and a newer
    /// build before an older one.
    ///
    /// `data_dir` is where private copies are kept, in `geoip/`, to be mapped; without it, as for a
    /// short command, files are read into memory. It blocks while it copies. It never fails: what
    /// cannot be used is named in the log.
    pub fn open(paths: Vec<PathBuf>, data_dir: Option<&Path>, redis: Option<RedisPool>) -> Geo {
        let copies = data_dir.map(|directory| directory.join("geoip")).and_then(|directory| {
            Copies::open(directory.clone())
                .inspect_err(|error| {
                    tracing::warn!(directory = %directory.display(), %error,
                        "files of places are kept in memory, for want of a directory");
                })
                .ok()
        });
        let (shelf, files) = Shelf::open(paths, copies);
        if files.is_empty() {
            tracing::info!("no files of places: where clients come from stays unknown");
        }
        Geo {
            trouble: AtomicUsize::new(shelf.trouble()),
            files: ArcSwap::from_pointee(files),
            shelf: Mutex::new(shelf),
            cache: Cache::new(PROCESS_CACHE_ENTRIES),
            shared: redis.map(SharedCache::new),
            answered: Answered::default(),
        }
    }

    /// Where `address` is, by the process's cache or the files. Never asks Redis, never waits.
    pub fn place(&self, address: IpAddr, now: DateTime<Utc>) -> Place {
        let files = self.files.load();
        if files.is_empty() {
            return Place::default();
        }
        let (address, now) = (canonical(address), now.timestamp());
        self.remembered(address, files.build(), now)
            .unwrap_or_else(|| self.ask_files(&files, address, now).place)
    }

    /// Where each of `addresses` is, in their order, by all three levels; Redis is asked in one
    /// round trip for those the process does not know, and told in another what the files said.
    pub async fn places(&self, addresses: &[IpAddr], now: DateTime<Utc>) -> Vec<Place> {
        let files = self.files.load_full();
        if files.is_empty() {
            return vec![Place::default(); addresses.len()];
        }
        let now = now.timestamp();
        let known: Vec<Option<Place>> = addresses
            .iter()
            .map(|&address| self.remembered(canonical(address), files.build(), now))
            .collect();
        let unknown = addresses.iter().zip(&known).filter(|(_, known)| known.is_none());
        let mut missed: Vec<IpAddr> = unknown.map(|(&address, _)| canonical(address)).collect();
        missed.sort_unstable();
        missed.dedup();
        let found = self.beyond_the_process(&files, missed, now).await;
        let known = addresses.iter().zip(known);
        known
            .map(|(&address, known)| known.unwrap_or_else(|| found[&canonical(address)].clone()))
            .collect()
    }

    /// Looks whether files changed, appeared or went, and takes up what can be used; whether the
    /// answers may be others now. Cheap when nothing changed; otherwise it blocks while it copies.
    pub fn reload_if_changed(&self) -> bool {
        // Whoever comes second would find nothing new.
        let Some(mut shelf) = self.shelf.try_lock() else { return false };
        let looked = shelf.look();
        self.trouble.store(shelf.trouble(), Ordering::Relaxed);
        let Some(files) = looked else { return false };
        if files.is_empty() {
            tracing::info!("no files of places are left: where clients come from stays unknown");
        }
        self.files.store(Arc::new(files));
        true
    }

    /// The files in use, in the order in which they are asked; empty if no places are known.
    pub fn files(&self) -> Vec<FileSummary> {
        self.files.load().files().iter().map(|file| file.summary()).collect()
    }

    /// How many files cannot be used as they are now, or are named and not there; for some an earlier
    /// one may be in use.
    pub fn trouble(&self) -> usize {
        self.trouble.load(Ordering::Relaxed)
    }

    /// The build of the files in use.
    pub fn build(&self) -> BuildId {
        self.files.load().build()
    }

    /// Which level answered how often.
    pub fn look_ups(&self) -> LookUps {
        LookUps {
            process: self.answered.process.load(Ordering::Relaxed),
            redis: self.answered.redis.load(Ordering::Relaxed),
            files: self.answered.files.load(Ordering::Relaxed),
            redis_failures: self.shared.as_ref().map_or(0, SharedCache::failures),
        }
    }

    /// Forgets where the addresses of `network` are; those of more than 256 in Redis end by themselves within
    /// a day. Without a network it forgets all that this process remembers.
    ///
    /// # Errors
    /// Redis's.
    pub async fn forget(&self, network: Option<Network>) -> Result<(), RedisPoolError> {
        let Some(network) = network else {
            self.cache.clear();
            return Ok(());
        };
        self.cache.retain(|address, _| !network.contains(*address));
        let addresses = network.clients(128, 256).into_iter().map(|one| one.address());
        match &self.shared {
            Some(shared) => shared.forget(addresses).await,
            None => Ok(()),
        }
    }

    fn remembered(&self, address: IpAddr, build: BuildId, now: i64) -> Option<Place> {
        let cached = self.cache.get(&address).filter(|cached| cached.is_fresh(build, now))?;
        self.answered.process.fetch_add(1, Ordering::Relaxed);
        Some(cached.place)
    }

    fn ask_files(&self, files: &FileSet, address: IpAddr, now: i64) -> Cached {
        let cached = Cached { place: files.find(address), asked: now, build: files.build() };
        self.answered.files.fetch_add(1, Ordering::Relaxed);
        self.cache.insert(address, cached.clone());
        cached
    }

    /// What Redis, then the files say about distinct canonical addresses.
    async fn beyond_the_process(
        &self,
        files: &FileSet,
        missed: Vec<IpAddr>,
        now: i64,
    ) -> HashMap<IpAddr, Place> {
        let shared = match &self.shared {
            Some(shared) => shared.get(&missed, files.build(), now).await,
            None => vec![None; missed.len()],
        };
        let mut places = HashMap::with_capacity(missed.len());
        let mut news = Vec::new();
        for (address, shared) in missed.into_iter().zip(shared) {
            let cached = match shared {
                Some(cached) => {
                    self.answered.redis.fetch_add(1, Ordering::Relaxed);
                    self.cache.insert(address, cached.clone());
                    cached
                }
                None => {
                    let cached = self.ask_files(files, address, now);
                    news.push((address, cached.clone()));
                    cached
                }
            };
            places.insert(address, cached.place);
        }
        if let Some(shared) = &self.shared {
            shared.put(&news, now).await;
        }
        places
    }
}
