//! Decides who may pass: client address, blocklist, quotas, request spool.
//!
//! Nothing in here knows a database or a web framework, so that any application can embed it.
#![warn(missing_docs)]

pub mod blocklist;
pub mod client_ip;
pub mod clock;
pub mod guard;
pub mod network;
pub mod pass;
pub mod quota;
pub mod rate_limit;
pub mod record;
pub mod redis;
pub mod sensitive_path;
pub mod spool;
pub mod target;
