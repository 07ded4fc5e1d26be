//! Why a command failed, and the exit code that says so.

use std::io::{self, Write};
use std::process::ExitCode;

use ipwarden_core::config::{self, ConfigError};
use ipwarden_core::db::DbError;
use ipwarden_core::lists::{ListError, ReviewError};

/// Why a command failed. The exit codes are promised to scripts; `ipctl --help` lists them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Exit 2: what was written cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// Exit 2: guard rails refuse the target.
    #[error("{0}")]
    Refused(String),
    /// Exit 3 when the store cannot be reached, 64 when its URL is no good, 1 otherwise.
    #[error("{0}")]
    Store(#[from] DbError),
    /// Exit 64.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Exit 0 when whoever read our output had enough of it, as `head` does; 1 otherwise.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// Exit 1.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// Exit 1 with a sentence.
    pub(crate) fn other(message: impl std::fmt::Display) -> Failure {
        Failure::Other(anyhow::anyhow!("{message}"))
    }

    fn exit_code(&self) -> u8 {
        match self {
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Failure::Usage(_) | Failure::Refused(_) => 2,
            Failure::Store(error) if error.is_unreachable() => 3,
            Failure::Store(DbError::Url(_)) | Failure::Config(_) => config::EXIT_CODE,
            Failure::Store(_) | Failure::Output(_) | Failure::Other(_) => 1,
        }
    }

    /// One sentence, or several in lines of their own.
    fn message(&self) -> String {
        let message = self.to_string();
        match (self, message.contains('\n')) {
            (Failure::Usage(_) | Failure::Refused(_), true) => {
                format!("nothing was changed:\n  {}", message.replace('\n', "\n  "))
            }
            _ => message,
        }
    }

    /// Says what went wrong, on standard error.
    pub(crate) fn report(self) -> ExitCode {
        let code = self.exit_code();
        if code != 0 {
            let remedy = match &self {
                Failure::Store(DbError::Unreachable(_) | DbError::Timeout(_)) => {
                    "\nhint: is the database running, and are its name, user and password right? \
                     `ipctl config show` tells which one is used"
                }
                Failure::Store(DbError::Hindered(_)) => {
                    "\nhint: nothing was changed; try again when that is over"
                }
                Failure::Store(DbError::Unconfirmed(_)) => {
                    "\nhint: look whether it is there, and try again if it is not"
                }
                _ => "",
            };
            // Standard error may be closed as well.
            let _ = writeln!(anstream::stderr(), "error: {}{remedy}", self.message());
        }
        ExitCode::from(code)
    }
}

impl From<ListError> for Failure {
    fn from(error: ListError) -> Failure {
        match error {
            ListError::Store(error) => Failure::Store(error),
            refused @ ListError::Refused(_) => Failure::Refused(refused.to_string()),
        }
    }
}

impl From<ReviewError> for Failure {
    fn from(error: ReviewError) -> Failure {
        match error {
            ReviewError::Store(error) => Failure::Store(error),
            ReviewError::Refused(refused) => Failure::Refused(refused.to_string()),
            ReviewError::NoSuch(_) => {
                Failure::other(format!("{error}; `ipctl list-suspicious --status all` lists them"))
            }
            ReviewError::Otherwise(ref finding) => Failure::other(format!(
                "{error}; `ipctl block {address}` or `ipctl unblock {address}` changes the list itself",
                address = finding.address
            )),
        }
    }
}
