//! Remembers: stores, recorder, places, scan; builds and feeds the guard.
#![warn(missing_docs)]

pub mod db;
pub mod geo;
pub mod redis;
