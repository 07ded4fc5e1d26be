//! What can go wrong between us and the store.

use std::path::PathBuf;
use std::time::Duration;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection could be had, or it broke.
    #[error("the store does not answer: {0}")]
    Unreachable(String),
    /// The store is there but took too long.
    #[error("the store did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// There is no store where one was expected, and none may be made.
    #[error(
        "there is no store at {}: start `api` once, or name another with --database-url",
        .0.display()
    )]
    Missing(PathBuf),
    /// The store's schema is older than this program.
    #[error("the store lacks the migrations {}: run `ipctl migrate`", .missing.join(", "))]
    OldSchema {
        /// The versions that have not been applied.
        missing: Vec<String>,
    },
    /// The URL of the store cannot be used.
    #[error("database_url: {0}")]
    Url(String),
    /// A migration failed; its transaction was rolled back.
    #[error("a migration failed: {0}")]
    Migration(String),
    /// Somebody else changed the row in between: a spool position, a lease.
    #[error("{0}")]
    Conflict(String),
    /// Any other answer of the database.
    #[error("the store refused: {0}")]
    Query(#[source] diesel::result::Error),
}

impl DbError {
    /// Whether trying again later can help, because the store is away rather than unwilling.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, DbError::Unreachable(_) | DbError::Timeout(_) | DbError::Missing(_))
    }
}

impl From<diesel::result::Error> for DbError {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::{DatabaseErrorKind, Error};
        match error {
            Error::DatabaseError(
                DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand,
                cause,
            ) => DbError::Unreachable(cause.message().to_owned()),
            // Diesel has no kind of its own for what a stopping or starting server says (57P01-57P03)
            // nor for a file that cannot be opened.
            Error::DatabaseError(DatabaseErrorKind::Unknown, ref cause)
                if UNREACHABLE.iter().any(|text| cause.message().contains(text)) =>
            {
                DbError::Unreachable(cause.message().to_owned())
            }
            other => DbError::Query(other),
        }
    }
}

const UNREACHABLE: [&str; 5] = [
    "the database system is",
    "terminating connection",
    "connection closed",
    "unable to open database file",
    "remaining connection slots",
];
