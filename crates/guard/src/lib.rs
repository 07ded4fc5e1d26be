//! An actix-web middleware that answers 403 and 429, and records every request.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # fn serve(guard: Arc<ipwarden_engine::guard::Guard>) -> std::io::Result<()> {
//! use actix_web::{App, HttpServer, web};
//! use ipwarden_guard::{ClientIp, GuardMiddleware};
//!
//! let guard = GuardMiddleware::new(guard);
//! HttpServer::new(move || {
//!     App::new()
//!         .wrap(guard.clone())
//!         .route("/", web::get().to(|client: ClientIp| async move { client.ip.to_string() }))
//! })
//! .bind(("127.0.0.1", 8080))?;
//! # Ok(())
//! # }
//! ```
//!
//! The guard itself is built and fed by `ipwarden-core`, or by hand from `ipwarden-engine`. Wrap it
//! last, so that it is outermost: actix runs `.wrap`s in reverse order. What is not HTTP gets the
//! server's own 4xx before any of this, and no record.
#![warn(missing_docs)]

mod ask;
mod extract;
mod fields;
mod middleware;
mod pass;
mod pending;
mod refusal;

pub use ask::{Question, ask};
pub use extract::{Admitted, ClientIp, NotGuarded, admission};
pub use fields::admission_fields;
pub use ipwarden_engine::guard::{Admission, Guard, Identity, Verdict};
pub use middleware::{GuardMiddleware, peer};
pub use pass::issue_pass;
pub use pending::Pending;
pub use refusal::{Page, Refusal, prefers_html, refusal};
