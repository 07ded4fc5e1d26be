//! Decides who may pass: client address, blocklist, quotas, request spool.
//!
//! Nothing in here knows a database or a web framework, so that any application can embed it.
#![warn(missing_docs)]

pub mod blocklist;
pub mod clock;
pub mod network;
pub mod record;
pub mod spool;
pub mod quota;
pub mod rate_limit;
