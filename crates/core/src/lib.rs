//! Remembers: stores, recorder, places, scan; builds and feeds the guard.
#![warn(missing_docs)]

pub mod access_log;
pub mod anonymise;
pub mod bouncers;
pub mod changes;
pub mod config;
pub mod context;
pub mod db;
pub mod decide;
pub mod decisions;
pub mod detect;
pub mod duration;
pub mod forget;
pub mod geo;
pub mod health;
pub mod import;
pub mod keys;
pub mod list_file;
pub mod lists;
pub mod logging;
pub mod migrate_from;
pub mod recorder;
pub mod redis;
pub mod scan;
pub mod sessions;
pub mod signing;
pub mod stats;
pub mod stored;
pub mod tail;
pub mod users;
