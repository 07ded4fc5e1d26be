//! The bouncer API: its protocol, what bouncers trip over, and bouncers as they are published.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod appsec;
mod client;
mod firewall;
mod look_ups;
mod million;
mod quirks;
mod real;
mod streams;
