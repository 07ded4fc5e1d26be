//! The ipwarden service: its listeners, and every route on them.
//!
//! [`server::run`] reads from top to bottom; `routes.rs` is the only list of routes.

pub mod huge_pages;
pub mod server;

mod auth;
mod connections;
mod error;
mod html;
mod input;
mod openapi;
mod paging;
mod routes;
