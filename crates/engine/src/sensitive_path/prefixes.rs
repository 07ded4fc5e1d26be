//! A set of path prefixes, and how a request target is held against it.

use super::decode;
use super::walk::{Walk, is_separator};

/// How often an encoding may be wrapped in another one and still be seen.
const ROUNDS: usize = 4;

/// Of a prefix so many segments count; a deeper one holds more than it says.
const MAX_WORDS: usize = 32;

/// Path prefixes that match at a segment boundary: `/admin` holds `/admin` and `/admin/x`, not
/// `/administrator`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathPrefixes {
    prefixes: Box<[Prefix]>,
}

/// In how many of its plausible readings a path lies at or below a set of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coverage {
    /// In none.
    No,
    /// In some, while others lead elsewhere.
    InSomeReadings,
    /// In every one. An ordinary path has one reading only.
    InEveryReading,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    /// The segments in lower case, none of them empty.
    pub(super) words: Box<[Box<[u8]>]>,
    /// The segments with a slash before each.
    plain: Box<[u8]>,
}

impl PathPrefixes {
    /// Takes prefixes as a person writes them: case, a trailing slash and percent-encoding do not
    /// count. `/` holds every path; an empty text holds none.
    pub fn new<S: AsRef<str>>(prefixes: &[S]) -> PathPrefixes {
        let written = prefixes.iter().map(|prefix| prefix.as_ref().trim());
        PathPrefixes {
            prefixes: written.filter(|text| !text.is_empty()).map(Prefix::new).collect(),
        }
    }

    /// Whether the path lies at or below a prefix in any plausible reading.
    #[inline]
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let path = path.as_ref();
        match ordinary(path) {
            Some(path) => self.holds_ordinary(path),
            None => self.read(path, |walk| walk.has_match()).has_match(),
        }
    }

    /// In how many of its readings the path lies at or below one of the prefixes.
    ///
    /// Of several prefixes one must hold in every reading for [`Coverage::InEveryReading`].
    #[inline]
    pub fn coverage(&self, path: impl AsRef<[u8]>) -> Coverage {
        let path = path.as_ref();
        match ordinary(path) {
            Some(path) if self.holds_ordinary(path) => Coverage::InEveryReading,
            Some(_) => Coverage::No,
            None => {
                let walk = self.read(path, |_| false);
                match (walk.has_match(), walk.has_certain_match()) {
                    (false, _) => Coverage::No,
                    (true, false) => Coverage::InSomeReadings,
                    (true, true) => Coverage::InEveryReading,
                }
            }
        }
    }

    fn holds_ordinary(&self, path: &[u8]) -> bool {
        self.prefixes.iter().any(|prefix| {
            let plain = &*prefix.plain;
            path.len() >= plain.len()
                && path[..plain.len()].eq_ignore_ascii_case(plain)
                && matches!(path.get(plain.len()), None | Some(b'/'))
        })
    }

    /// Walks through the path once for each number of decodings, until `is_enough`.
    #[cold]
    fn read(&self, target: &[u8], is_enough: impl Fn(&Walk<'_>) -> bool) -> Walk<'_> {
        let mut walk = Walk::new(&self.prefixes);
        let path = path_of(target);
        if path.is_ascii() && !path.contains(&b'%') {
            walk.through(path);
            return walk;
        }
        let mut text = decode::text_of(path);
        decode::fold_look_alikes(&mut text);
        let mut changed = decode::decode_escapes(&mut text);
        for _ in 0..ROUNDS {
            decode::fold_look_alikes(&mut text);
            walk.through(&text);
            if !changed || is_enough(&walk) {
                break;
            }
            changed = decode::decode_escapes(&mut text);
            if !changed {
                break;
            }
        }
        walk
    }
}

impl Prefix {
    fn new(text: &str) -> Prefix {
        let mut text = decode::text_of(path_of(text.as_bytes()));
        decode::decode_escapes(&mut text);
        text.make_ascii_lowercase();
        let words: Box<[Box<[u8]>]> = text
            .split(is_separator)
            .filter(|word| !matches!(word, [] | [b'.']))
            .take(MAX_WORDS)
            .map(Box::from)
            .collect();
        let plain = words.iter().flat_map(|word| [b"/", &**word]).flatten().copied().collect();
        Prefix { words, plain }
    }
}

/// The path up to its query, if there is only one way to read it.
///
/// This is what nearly every request comes through, so it is one pass with one look-up per byte.
#[inline]
fn ordinary(target: &[u8]) -> Option<&[u8]> {
    let (b'/', rest) = target.split_first()? else { return None };
    let mut before = SLASH;
    for (at, byte) in rest.iter().enumerate() {
        let Kind { is, not_behind } = KINDS[usize::from(*byte)];
        if not_behind & before != 0 {
            return None;
        }
        if is == END {
            return Some(&target[..=at]);
        }
        before = is;
    }
    (before != DOT).then_some(target)
}

/// What a byte means to [`ordinary`], and behind what else readers disagree about it.
#[derive(Clone, Copy)]
struct Kind {
    is: u8,
    not_behind: u8,
}

const NAME: u8 = 1;
const SLASH: u8 = 2;
const DOT: u8 = 4;
const END: u8 = 8;

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind { is: NAME, not_behind: 0 }; 256];
    let mut byte = 0;
    while byte < 256 {
        match byte as u8 {
            b'/' => kinds[byte] = Kind { is: SLASH, not_behind: SLASH | DOT },
            b'.' => kinds[byte] = Kind { is: DOT, not_behind: SLASH },
            b'?' | b'#' => kinds[byte] = Kind { is: END, not_behind: DOT },
            b'%' | b'\\' | b';' | b'$' | 0..=b' ' | 0x7f.. => kinds[byte].not_behind = !0,
            _ => {}
        }
        byte += 1;
    }
    kinds
};

/// The path of a request target: without query and fragment, and of the absolute form
/// (RFC 9112, 3.2.2) without scheme and authority.
fn path_of(target: &[u8]) -> &[u8] {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let path = &target[..end];
    let is_scheme_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let scheme = path.iter().take_while(|byte| is_scheme_byte(byte)).count();
    match path[scheme..].strip_prefix(b"://") {
        Some(behind) if scheme > 0 => {
            let authority = behind.iter().take_while(|byte| !matches!(byte, b'/' | b'\\')).count();
            &behind[authority..]
        }
        _ => path,
    }
}
