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
    /// The store is there, but cannot do it now: its disk is full, it may only be read, or others are
    /// in the way.
    #[error("the store cannot do it now: {0}")]
    Hindered(String),
    /// The store went away while it was to confirm a change, which it may have made or not.
    #[error("the store did not confirm the change, which may have been made: {0}")]
    Unconfirmed(String),
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
    /// Whether trying again later can help, because the store is away or hindered rather than unwilling.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            DbError::Unreachable(_)
                | DbError::Timeout(_)
                | DbError::Hindered(_)
                | DbError::Unconfirmed(_)
                | DbError::Missing(_)
        )
    }

    /// The error of a change whose confirmation it cut short.
    pub(super) fn unconfirmed(self) -> DbError {
        match self {
            DbError::Unreachable(_) | DbError::Timeout(_) => DbError::Unconfirmed(self.to_string()),
            other => other,
        }
    }
}

impl From<diesel::result::Error> for DbError {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::{DatabaseErrorKind as Kind, Error};
        let Error::DatabaseError(kind, cause) = &error else { return DbError::Query(error) };
        let text = cause.message();
        let says = |texts: &[&str]| texts.iter().any(|known| text.contains(known));
        match kind {
            Kind::ClosedConnection | Kind::UnableToSendCommand => {
                DbError::Unreachable(text.to_owned())
            }
            Kind::ReadOnlyTransaction | Kind::SerializationFailure => {
                DbError::Hindered(text.to_owned())
            }
            Kind::Unknown if says(&UNREACHABLE) => DbError::Unreachable(text.to_owned()),
            Kind::Unknown if says(&HINDERED) => DbError::Hindered(text.to_owned()),
            _ => DbError::Query(error),
        }
    }
}

/// Diesel keeps no SQLSTATE, so what it has no kind for is told by its text. PostgreSQL may be set up
/// to speak another language than English: the pool finds out by itself when a connection has ended
/// with its last answer, and the recorder tries again what was refused, whatever was said.
const UNREACHABLE: [&str; 7] = [
    // 57P03, 57P01 and its kin.
    "the database system is",
    "terminating connection",
    "connection closed",
    // 53300.
    "remaining connection slots",
    "too many clients",
    "too many connections",
    // SQLite.
    "unable to open database file",
];

const HINDERED: [&str; 12] = [
    // 53100, as the system says it and as PostgreSQL does.
    "No space left on device",
    "Disk quota exceeded",
    "disk full",
    // 53200 and what memory it shares.
    "out of memory",
    "out of shared memory",
    // 57014, 55P03.
    "canceling statement due to",
    // 40P01.
    "deadlock detected",
    // SQLite.
    "database or disk is full",
    "database is locked",
    "database table is locked",
    "readonly database",
    "disk I/O error",
];

#[cfg(test)]
mod tests {
    use diesel::result::{DatabaseErrorKind as Kind, Error};

    use super::*;

    fn error(kind: Kind, text: &str) -> DbError {
        Error::DatabaseError(kind, Box::new(text.to_owned())).into()
    }

    #[test]
    fn what_passes_is_told_from_what_is_refused_for_good() {
        for text in [
            "the database system is starting up",
            "terminating connection due to administrator command",
            "sorry, too many clients already",
            "too many connections for role \"ipwarden\"",
        ] {
            let error = error(Kind::Unknown, text);
            assert!(matches!(error, DbError::Unreachable(_)), "{error:?}");
        }
        for text in [
            "could not extend file \"base/5/1259\": No space left on device",
            "canceling statement due to lock timeout",
            "deadlock detected",
            "database or disk is full",
        ] {
            let error = error(Kind::Unknown, text);
            assert!(matches!(error, DbError::Hindered(_)), "{error:?}");
            assert!(error.is_unreachable());
        }
        let text = "cannot execute INSERT in a read-only transaction";
        let read_only = error(Kind::ReadOnlyTransaction, text);
        assert!(matches!(read_only, DbError::Hindered(_)), "{read_only:?}");

        for (kind, text) in [
            (Kind::CheckViolation, "new row violates check constraint"),
            (Kind::Unknown, "invalid byte sequence for encoding \"UTF8\": 0x00"),
        ] {
            let refused = error(kind, text);
            assert!(matches!(refused, DbError::Query(_)), "{refused:?}");
            assert!(!refused.is_unreachable());
        }
    }

    #[test]
    fn only_a_store_that_went_away_leaves_a_change_unconfirmed() {
        let gone = DbError::Unreachable("connection closed".to_owned()).unconfirmed();
        assert!(matches!(gone, DbError::Unconfirmed(_)) && gone.is_unreachable(), "{gone:?}");
        let full = DbError::Hindered("disk full".to_owned()).unconfirmed();
        assert!(matches!(full, DbError::Hindered(_)), "{full:?}");
    }
}
