//! The JSON API as its clients see it, in both sizes: who may, what is refused, and what comes back.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod bulk;
mod dashboards;
mod findings;
mod idempotency;
mod input;
mod keys;
mod lists;
mod metrics;
mod openapi;
mod pages;
mod sessions;
mod stats;
mod streams;
