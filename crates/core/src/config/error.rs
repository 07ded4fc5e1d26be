//! What can be wrong with a configuration, said so that the reader knows what to write instead.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where the value of a key comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    #[default]
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable, by its name.
    Variable(String),
    /// A flag on the command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Variable(name) => f.write_str(name),
            Source::Flag => f.write_str("command line"),
        }
    }
}

/// One key with a value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key in the file's notation, such as `scan.max_requests`.
    pub key: String,
    /// Who set it.
    pub source: Source,
    /// What is wrong, and what is right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}): {}", self.key, self.source, self.message)
    }
}

/// Why there is no configuration. Binaries exit with [`EXIT_CODE`](super::EXIT_CODE).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named cannot be read.
    #[error("cannot read {}, named by {named_by}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What named it.
        named_by: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected.
        message: String,
    },
    /// Keys that do not exist, or values that cannot be; all of them, not only the first.
    #[error("bad configuration: {}", lines(.0))]
    Invalid(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        many => many.iter().map(|problem| format!("\n  {problem}")).collect(),
    }
}
