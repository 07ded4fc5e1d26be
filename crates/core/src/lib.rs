//! ipwarden-core.
#![warn(missing_docs)]
