//! Remembers: the store behind everything, PostgreSQL or SQLite.
//!
//! One file per table holds its rows and every statement on it; whoever calls owns the transaction. A
//! statement is written once and compiled for both databases by the macro `on!`:
//!
//! ```ignore
//! pub async fn find(conn: &mut Conn, id: i64) -> Result<Option<Row>, DbError> {
//!     on!(conn, |c| table::table.find(id).first(c).await.optional())
//! }
//! db.run(move |conn| find(conn, id).boxed()).await
//! ```
//!
//! Diesel never leaves this module: what goes in and out are plain rows and [`DbError`].

/// Runs one statement on whichever database the connection belongs to.
///
/// The body is compiled twice, once for each backend; its error becomes a [`DbError`].
macro_rules! on {
    ($conn:expr, |$c:ident| $body:expr) => {
        match $conn {
            $crate::db::Conn::Postgres(c) => {
                let $c: &mut diesel_async::AsyncPgConnection = c;
                ($body).map_err($crate::db::DbError::from)
            }
            $crate::db::Conn::Sqlite(c) => {
                let $c: &mut $crate::db::connection::SqliteConn = c;
                ($body).map_err($crate::db::DbError::from)
            }
        }
    };
}

/// Inserts many rows with one statement on SQLite; diesel-async has no batches there, Diesel itself has.
macro_rules! insert_batch {
    ($c:expr, $insert:expr) => {{
        let insert = $insert;
        $c.spawn_blocking(move |sync| diesel::RunQueryDsl::execute(insert, sync)).await
    }};
}

pub mod allowed_ips;
pub mod anonymised;
pub mod api_keys;
pub mod audit_log;
pub mod blocked_ips;
pub mod bouncers;
mod client;
mod connection;
pub mod entries;
mod error;
pub mod foreign;
pub mod forgotten;
pub mod idempotency_keys;
pub mod imports;
pub mod leases;
pub mod list_changes;
mod migrations;
pub mod nodes;
pub mod partitions;
mod postgres;
pub mod request_hours;
pub mod request_logs;
pub mod request_tops;
pub mod scan_runs;
mod schema;
pub mod secrets;
pub mod spool_positions;
mod sqlite;
pub mod suspicious_ips;
mod tls;
pub mod touched_hours;
pub mod traffic;
mod types;
pub mod users;
mod words;

pub use client::Client;
pub use connection::{Conn, Db};
pub use error::DbError;
pub use sqlite::{Create, DataVersion};
pub(crate) use tls::check_url;
