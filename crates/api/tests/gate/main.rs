//! The gate: what proxies ask, and what they are answered.

#[path = "../common/mod.rs"]
mod common;

mod envoy;
mod faults;
mod forward_auth;
mod grpc;
mod listener;
mod passes;
