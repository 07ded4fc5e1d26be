//! The gate: what proxies and bouncers of the same network ask.

pub(crate) mod envoy;
pub(crate) mod forward_auth;
pub(crate) mod original;
