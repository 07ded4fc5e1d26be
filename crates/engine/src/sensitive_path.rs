//! Whether a path leads to a sensitive place, in any plausible reading.
//!
//! Proxies and backends disagree on what a path says: how often it is decoded, whether `;x` and
//! `\` belong to a name, whether `//` is one slash, where a name ends. Who looks for an admin page
//! uses this. So a path is sensitive if *some* plausible reader would serve it at or below one of
//! the listed prefixes. `/admin/../public` is not, since every reader that knows dot segments
//! resolves it outside (RFC 3986, 5.2.4); `/admin/..;/public` is, since some keep `..;` as a name.
//!
//! What is read in more than one way:
//! - percent-encoding, up to four times over; `%uXXXX` as IIS reads it; overlong UTF-8; the
//!   full-width and other look-alikes that best-fit mappings turn into ASCII;
//! - `\`, and any encoded slash: a separator, or part of a name;
//! - `//`: one slash, or an empty segment, or the start of a host name;
//! - `;x`: a parameter, or part of a name; dot segments are looked for before and after it is cut;
//! - an encoded `?`, `#`, NUL or line end: the end of the path, or part of a name;
//! - white space around a name, dots behind it, control characters in it, `::$DATA`: as Windows
//!   and lenient frameworks drop them, or part of a name.
//!
//! Letters match without case, ASCII only. A letter of another script that merely looks alike is
//! another name. An extension (`/admin.php`) is another name too.
//!
//! The work is linear in the length of the path, and nothing is allocated for an ordinary one. One that
//! is not ordinary and has more than 2,048 segments, which no server takes, is sensitive if the words of a
//! prefix stand anywhere in it: walking through it in all its readings would take tens of milliseconds.

pub use prefixes::{Coverage, PathPrefixes};

mod decode;
mod prefixes;
#[cfg(test)]
mod tests;
mod walk;

/// The prefixes whose visitors are put up for review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensitivePaths(PathPrefixes);

impl SensitivePaths {
    /// The prefixes that are sensitive unless others are configured.
    pub const DEFAULT: [&str; 2] = ["/admin", "/login"];

    /// Watches these prefixes; see [`PathPrefixes::new`].
    pub fn new<S: AsRef<str>>(prefixes: &[S]) -> SensitivePaths {
        SensitivePaths(PathPrefixes::new(prefixes))
    }

    /// Whether the path, as received, is at or below one of the prefixes in any plausible reading.
    ///
    /// It may be a whole request target: an absolute form's host is skipped, query and fragment
    /// are cut.
    #[inline]
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        self.0.matches(path)
    }
}

impl Default for SensitivePaths {
    fn default() -> SensitivePaths {
        SensitivePaths::new(&SensitivePaths::DEFAULT)
    }
}
