//! ipwarden-guard.
#![warn(missing_docs)]
