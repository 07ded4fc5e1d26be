//! Requests to the public listener: how many are admitted, and what the log holds of each.

#[path = "../common/mod.rs"]
mod common;

mod log;
mod quotas;
mod raw;
mod together;
