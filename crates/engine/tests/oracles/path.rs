//! Sensitive paths against readers that each take a path in one way only.
//!
//! An input is text: prefixes (none: those of the default), and then a request target. What is
//! judged: that a path which some plain reader serves below a prefix is sensitive, that one which
//! holds no word of a prefix, however decoded, is not, that neither query nor fragment counts, and
//! what is recorded of the path.

use ipwarden_engine::record::{MAX_PATH, escape_path};
use ipwarden_engine::sensitive_path::{Coverage, PathPrefixes, SensitivePaths};

/// Judges one input.
///
/// # Panics
/// If the judgement of a path, or what is recorded of it, breaks a promise.
pub(crate) fn path(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let Ok(written) = std::str::from_utf8(&input[..end]) else { return };
    let target = input.get(end + 1..).unwrap_or_default();
    let written: Vec<&str> = match written {
        "" => SensitivePaths::DEFAULT.to_vec(),
        _ => written.split(',').collect(),
    };

    let prefixes = PathPrefixes::new(&written);
    let sensitive = prefixes.matches(target);
    assert_eq!(sensitive, SensitivePaths::new(&written).matches(target));
    let coverage = prefixes.coverage(target);
    assert_eq!(sensitive, coverage != Coverage::No, "{coverage:?}");

    let cut = before_query(target);
    for tail in ["", "?", "?/admin/../..", "#/login", "?%2e#"] {
        let again = [cut, tail.as_bytes()].concat();
        assert_eq!(prefixes.coverage(again), coverage, "neither query nor fragment counts");
    }
    let each = written.iter().map(|one| PathPrefixes::new(&[one]).coverage(target));
    assert_eq!(each.max().unwrap_or(Coverage::No), coverage, "each prefix counts by itself");

    let plain: Vec<Vec<Vec<u8>>> = written.iter().filter_map(|prefix| words(prefix)).collect();
    // Reading in so many ways takes long; a longer path is no other case.
    if plain.len() == written.len() && cut.len() <= 400 {
        let served = readings(cut).any(|read| plain.iter().any(|words| starts_with(&read, words)));
        assert!(sensitive || !served, "a plain reader serves it below a prefix");
        let mentioned = plain.iter().any(|words| mentions(cut, words));
        assert!(!sensitive || mentioned, "no word of a prefix is in it, however it is read");
    }
    recorded(target);
}

/// What is recorded of a target.
fn recorded(target: &[u8]) {
    let path = escape_path(target);
    assert!(path.len() <= MAX_PATH);
    assert!(path.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "{path:?}");
    assert!(!path.contains(['?', '#']), "{path:?}");
    assert_eq!(escape_path(path.as_bytes()), path, "what is recorded is recorded as it is");
    let whole: String = before_query(target)
        .iter()
        .map(|byte| match byte {
            b'!'..=b'~' => char::from(*byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    assert!(whole.starts_with(&path), "{path:?} of {whole:?}");
    assert!(path == whole || path.len() > MAX_PATH - 3, "no more is cut than has to be");
    let is_cut_in_two = path.len() < whole.len()
        && (1..=2).any(|left| {
            path.len() >= left
                && matches!(whole.as_bytes()[path.len() - left..], [b'%', a, b, ..]
                    if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
        });
    assert!(!is_cut_in_two, "no escape is cut in two: {path:?}");
}

fn before_query(target: &[u8]) -> &[u8] {
    target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
}

/// The words of a prefix that is written plainly; other ways of writing are not judged here.
fn words(prefix: &str) -> Option<Vec<Vec<u8>>> {
    let path = prefix.strip_prefix('/')?;
    let is_plain = |word: &str| {
        (3..20).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let words: Vec<&str> = path.split('/').collect();
    let lower = words.iter().map(|word| word.to_ascii_lowercase().into_bytes());
    (words.iter().all(|word| is_plain(word)) && words.len() < 8).then(|| lower.collect())
}

/// One way to read a path.
#[derive(Clone, Copy)]
struct Reader {
    backslash_separates: bool,
    drops_parameters: bool,
    pops_before_parameters: bool,
    keeps_empty: bool,
    ends_at_nul: bool,
}

/// The segments that each reader resolves the path to, who decodes it up to four times. None of
/// them folds look-alikes.
fn readings(path: &[u8]) -> impl Iterator<Item = Vec<Vec<u8>>> {
    let once = decoded(behind_authority(path));
    let mut texts = vec![once];
    while let Some(last) = texts.last()
        && texts.len() < 4
        && last.contains(&b'%')
    {
        texts.push(decoded(last));
    }
    texts.into_iter().flat_map(|text| {
        (0..1_u8 << 5).map(move |choices| {
            let is = |bit: u8| choices >> bit & 1 == 1;
            let reader = Reader {
                backslash_separates: is(0),
                drops_parameters: is(1),
                pops_before_parameters: is(2),
                keeps_empty: is(3),
                ends_at_nul: is(4),
            };
            reader.read(&text)
        })
    })
}

impl Reader {
    fn read(self, decoded: &[u8]) -> Vec<Vec<u8>> {
        let nul = decoded.iter().position(|byte| *byte == 0).filter(|_| self.ends_at_nul);
        let text = &decoded[..nul.unwrap_or(decoded.len())];
        let text = text.strip_prefix(b"/").unwrap_or(text);
        let mut resolved: Vec<Vec<u8>> = Vec::new();
        let is_separator =
            |byte: &u8| *byte == b'/' || (*byte == b'\\' && self.backslash_separates);
        for segment in text.split(is_separator) {
            let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            let shown = if self.drops_parameters { name } else { segment };
            match if self.pops_before_parameters { segment } else { shown } {
                b"." => {}
                b".." => drop(resolved.pop()),
                b"" if !self.keeps_empty => {}
                _ => resolved.push(shown.to_ascii_lowercase()),
            }
        }
        resolved
    }
}

fn behind_authority(path: &[u8]) -> &[u8] {
    let scheme =
        path.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"+-.".contains(byte));
    let behind = match scheme {
        Some(at) if at > 0 => path[at..].strip_prefix(b"://"),
        _ => None,
    };
    let Some(behind) = behind else { return path };
    let slash = behind.iter().position(|byte| matches!(byte, b'/' | b'\\'));
    slash.map_or(&[], |at| &behind[at..])
}

/// Decodes `%XX` once.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let escaped = match *rest {
            [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                std::str::from_utf8(&rest[1..3]).ok().and_then(|h| u8::from_str_radix(h, 16).ok())
            }
            _ => None,
        };
        plain.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { &rest[3..] } else { tail };
    }
    plain
}

fn starts_with(read: &[Vec<u8>], words: &[Vec<u8>]) -> bool {
    read.len() >= words.len() && read.iter().zip(words).all(|(name, word)| name == word)
}

/// Whether every word is in the path, once it is decoded as often as anything in it can be. Only
/// of ASCII is this known: anything else may be a look-alike.
fn mentions(path: &[u8], words: &[Vec<u8>]) -> bool {
    let mut text = path.to_vec();
    for _ in 0..6 {
        let escaped_wide = text.windows(2).any(|pair| matches!(pair, [b'%', b'u' | b'U']));
        if !text.is_ascii() || escaped_wide {
            return true;
        }
        let mut shown = text.to_ascii_lowercase();
        shown.retain(|byte| !byte.is_ascii_control());
        let holds = |word: &Vec<u8>| shown.windows(word.len()).any(|part| part == word.as_slice());
        if words.iter().all(holds) {
            return true;
        }
        text = decoded(&text);
    }
    false
}
