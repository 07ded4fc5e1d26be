//! Walks through the segments of a path in all its readings at once.
//!
//! Each prefix is a small machine. Its lane `n` holds the depths that are reachable with exactly
//! the first `n` words of the prefix standing at the bottom, one bit for each depth: a name pushes,
//! `..` pops, and a segment that can be read in two ways leads to both. The last lane is a match.
//! So the readings are never listed, and the work is linear however many there are. Readings of
//! single segments mix freely, which takes in a few that no one reader has.

use smallvec::SmallVec;

use super::decode::ENCODED_SLASH;
use super::prefixes::Prefix;

/// Stands for every depth from here on, so that no path is too deep to be judged.
const DEEPEST: u64 = 1 << 63;

/// A text of more segments than this is walked through no more: what no server takes is not worth
/// milliseconds. 2,048 segments are at least 4 kB of slashes and single letters.
const MOST_SEGMENTS: usize = 2_048;

/// The lanes of all prefixes, one after the other.
type Lanes = SmallVec<[u64; 8]>;

/// What became of the readings walked through so far.
pub(super) struct Walk<'a> {
    prefixes: &'a [Prefix],
    /// For each prefix: whether some reading matched, and whether some did not.
    outcomes: SmallVec<[(bool, bool); 4]>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(prefixes: &'a [Prefix]) -> Walk<'a> {
        Walk { prefixes, outcomes: SmallVec::from_elem((false, false), prefixes.len()) }
    }

    /// Whether a prefix matched in some reading.
    pub(super) fn has_match(&self) -> bool {
        self.outcomes.iter().any(|(matched, _)| *matched)
    }

    /// Whether one prefix matched in every reading.
    pub(super) fn has_certain_match(&self) -> bool {
        self.outcomes.iter().any(|(matched, missed)| *matched && !*missed)
    }

    /// Walks through a decoded text, also as a reader who takes `//name` for a host.
    pub(super) fn through(&mut self, text: &[u8]) {
        if separators(text) > MOST_SEGMENTS {
            return self.look_for_words(text);
        }
        self.through_path(text);
        if let Some(path) = behind_host(text) {
            self.through_path(path);
        }
    }

    fn through_path(&mut self, text: &[u8]) {
        let mut lanes = self.start();
        let text = text.strip_prefix(b"/").unwrap_or(text);
        for segment in text.split(|byte| *byte == b'/') {
            let oddities = Oddities::of(segment);
            if let Some(end) = oddities.end_of_path(segment) {
                let mut ended = lanes.clone();
                self.pass(&mut ended, &segment[..end], oddities);
                self.conclude(&ended);
            }
            self.pass(&mut lanes, segment, oddities);
        }
        self.conclude(&lanes);
    }

    /// Takes a text with all words of a prefix anywhere in it for one that some reader serves there.
    fn look_for_words(&mut self, text: &[u8]) {
        let seen: Vec<u8> = seen(text).map(|byte| byte.to_ascii_lowercase()).collect();
        for (prefix, outcome) in self.prefixes.iter().zip(&mut self.outcomes) {
            outcome.0 |= prefix.words.iter().all(|word| holds(&seen, word));
            outcome.1 |= !prefix.words.is_empty();
        }
    }

    fn start(&self) -> Lanes {
        let lanes = self.prefixes.iter().flat_map(|prefix| 0..=prefix.words.len());
        lanes.map(|lane| if lane == 0 { 1 } else { 0 }).collect()
    }

    /// Notes for each prefix whether its last lane was reached, and whether any other was.
    fn conclude(&mut self, lanes: &[u64]) {
        let mut rest = lanes;
        for (prefix, outcome) in self.prefixes.iter().zip(&mut self.outcomes) {
            let (own, others) = rest.split_at(prefix.words.len() + 1);
            outcome.0 |= own[own.len() - 1] != 0;
            outcome.1 |= own[..own.len() - 1].iter().any(|depths| *depths != 0);
            rest = others;
        }
    }

    /// Passes what stands between two slashes, where backslashes separate or do not, and encoded slashes
    /// likewise, each for itself.
    fn pass(&self, lanes: &mut Lanes, segment: &[u8], oddities: Oddities) {
        if !oddities.has(Oddities::BACKSLASH | Oddities::ENCODED_SLASH) {
            return self.step(lanes, &Segment::read(segment, oddities));
        }
        let before = lanes.clone();
        self.step(lanes, &Segment::read(segment, oddities));
        for separating in [
            Oddities::BACKSLASH,
            Oddities::ENCODED_SLASH,
            Oddities::BACKSLASH | Oddities::ENCODED_SLASH,
        ] {
            if oddities.0 & separating != separating {
                continue;
            }
            let mut parted = before.clone();
            let separates = |byte: &u8| Oddities::OF_BYTE[usize::from(*byte)] & separating != 0;
            for part in segment.split(separates) {
                self.step(&mut parted, &Segment::read(part, oddities));
            }
            for (depths, others) in lanes.iter_mut().zip(parted) {
                *depths |= others;
            }
        }
    }

    fn step(&self, lanes: &mut [u64], segment: &Segment<'_>) {
        let mut rest = lanes;
        for prefix in self.prefixes {
            let (own, others) = rest.split_at_mut(prefix.words.len() + 1);
            step_one(own, &prefix.words, segment);
            rest = others;
        }
    }
}

/// Moves the lanes of one prefix past one segment.
fn step_one(lanes: &mut [u64], words: &[Box<[u8]>], segment: &Segment<'_>) {
    // Only a segment with two readings needs the lanes as they were after they have moved.
    match (&segment.name, segment.may_pop) {
        (Some(name), false) => push(lanes, words, name, segment.may_stay),
        (None, true) => pop(lanes),
        (None, false) => {}
        (Some(name), true) => {
            let mut popped = Lanes::from_slice(lanes);
            pop(&mut popped);
            push(lanes, words, name, segment.may_stay);
            for (depths, others) in lanes.iter_mut().zip(popped) {
                *depths |= others;
            }
        }
    }
}

/// One level deeper. What leaves a lane goes to the next one, so the last lane moves first.
fn push(lanes: &mut [u64], words: &[Box<[u8]>], name: &Name<'_>, may_stay: bool) {
    for lane in (0..lanes.len()).rev() {
        let depths = lanes[lane];
        // Nothing but the words of the prefix stands at this depth of this lane.
        let bottom = depths & 1 << lane;
        let mut pushed = depths;
        if bottom != 0 && words.get(lane).is_some_and(|word| name.is(word)) {
            lanes[lane + 1] |= bottom << 1;
            if !name.is_ambiguous {
                pushed ^= bottom;
            }
        }
        let stayed = if may_stay { depths } else { 0 };
        lanes[lane] = stayed | pushed << 1 | pushed & DEEPEST;
    }
}

/// One level up. What leaves a lane goes to the one before, so the first lane moves first.
fn pop(lanes: &mut [u64]) {
    for lane in 0..lanes.len() {
        let depths = lanes[lane];
        let bottom = depths & 1 << lane;
        lanes[lane] = (depths ^ bottom) >> 1 | depths & DEEPEST;
        match lane {
            // Above the root is the root.
            0 => lanes[0] |= bottom,
            _ => lanes[lane - 1] |= bottom >> 1,
        }
    }
}

/// The ways in which a segment may be read.
struct Segment<'a> {
    /// As nothing: an empty segment among merged slashes, or `.`.
    may_stay: bool,
    /// As `..`.
    may_pop: bool,
    name: Option<Name<'a>>,
}

struct Name<'a> {
    as_it_is: &'a [u8],
    /// Without parameters, without stream, without what is dropped at its ends.
    bare: &'a [u8],
    /// It may also be taken for a name that only looks like it.
    is_ambiguous: bool,
}

impl<'a> Segment<'a> {
    fn read(text: &'a [u8], oddities: Oddities) -> Segment<'a> {
        let named = |bare: &'a [u8], is_ambiguous| Name { as_it_is: text, bare, is_ambiguous };
        match text {
            b"." => return Segment { may_stay: true, may_pop: false, name: None },
            b".." => return Segment { may_stay: false, may_pop: true, name: None },
            [] => return Segment { may_stay: true, may_pop: false, name: Some(named(text, true)) },
            [.., b'.'] => {}
            _ if oddities.has(Oddities::NAME) => {}
            _ => {
                return Segment { may_stay: false, may_pop: false, name: Some(named(text, false)) };
            }
        }
        let before_parameters = text.split(|byte| *byte == b';').next().unwrap_or(text);
        let trimmed = trim(before_parameters, is_blank, is_blank);
        let may_stay = seen(trimmed).next().is_none() || seen(trimmed).eq(*b".");
        let may_pop = seen(trimmed).eq(*b"..");
        let bare = trim(before_stream(trimmed), is_blank, |byte| byte == b'.' || is_blank(byte));
        Segment { may_stay, may_pop, name: Some(named(bare, true)) }
    }
}

impl Name<'_> {
    fn is(&self, word: &[u8]) -> bool {
        self.as_it_is.eq_ignore_ascii_case(word)
            || seen(self.bare).map(|byte| byte.to_ascii_lowercase()).eq(word.iter().copied())
    }
}

fn separators(text: &[u8]) -> usize {
    text.iter().filter(|byte| is_separator(byte)).count()
}

/// Whether a word, which is never empty, stands somewhere in a text.
fn holds(text: &[u8], word: &[u8]) -> bool {
    let starts = (0..text.len()).filter(|at| text[*at] == word[0]);
    starts.into_iter().any(|at| text[at..].starts_with(word))
}

/// The bytes of a name that a reader who drops control characters sees.
fn seen(name: &[u8]) -> impl Iterator<Item = u8> {
    name.iter().copied().filter(|byte| !byte.is_ascii_control())
}

/// Which bytes that readers disagree about are in a segment.
#[derive(Clone, Copy)]
struct Oddities(u8);

impl Oddities {
    /// Something that a name may be read without.
    const NAME: u8 = 1;
    const BACKSLASH: u8 = 2;
    /// Something that may end the path.
    const END: u8 = 4;
    const ENCODED_SLASH: u8 = 8;

    const OF_BYTE: [u8; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = match byte as u8 {
                b'\\' => Oddities::BACKSLASH,
                ENCODED_SLASH => Oddities::ENCODED_SLASH,
                b'?' | b'#' => Oddities::END,
                b'\0' | b'\r' | b'\n' => Oddities::END | Oddities::NAME,
                b';' | b'$' | 0..=b' ' | 0x7f.. => Oddities::NAME,
                _ => 0,
            };
            byte += 1;
        }
        table
    };

    fn of(segment: &[u8]) -> Oddities {
        Oddities(segment.iter().fold(0, |all, byte| all | Oddities::OF_BYTE[usize::from(*byte)]))
    }

    fn has(self, oddity: u8) -> bool {
        self.0 & oddity != 0
    }

    fn end_of_path(self, segment: &[u8]) -> Option<usize> {
        let ends = |byte: &u8| Oddities::OF_BYTE[usize::from(*byte)] & Oddities::END != 0;
        if self.has(Oddities::END) { segment.iter().position(ends) } else { None }
    }
}

/// White space in ASCII and Latin-1, and control characters.
fn is_blank(byte: u8) -> bool {
    matches!(byte, 0..=b' ' | 0x7f | 0x85 | 0xa0)
}

fn trim(mut name: &[u8], before: fn(u8) -> bool, behind: fn(u8) -> bool) -> &[u8] {
    while let [first, rest @ ..] = name
        && before(*first)
    {
        name = rest;
    }
    while let [rest @ .., last] = name
        && behind(*last)
    {
        name = rest;
    }
    name
}

/// What stands before the stream of an NTFS name: `x::$DATA`, `x:$I30:$INDEX_ALLOCATION`.
fn before_stream(name: &[u8]) -> &[u8] {
    let stream = name.windows(2).position(|pair| pair == b":$");
    let Some(colon) = stream else { return name };
    name[..colon].strip_suffix(b":").unwrap_or(&name[..colon])
}

/// Whether some reader takes it for a separator.
pub(super) fn is_separator(byte: &u8) -> bool {
    matches!(*byte, b'/' | b'\\' | ENCODED_SLASH)
}

/// The path behind `//host.name`, which some URL parsers take for an authority (RFC 3986, 4.2).
fn behind_host(text: &[u8]) -> Option<&[u8]> {
    let slashes = text.iter().take_while(|byte| is_separator(byte)).count();
    let host_and_path = &text[slashes..];
    let end = host_and_path.iter().position(is_separator)?;
    let (host, path) = host_and_path.split_at(end);
    let looks_like_a_host = host.iter().any(|byte| matches!(byte, b'.' | b':' | b'@'));
    (slashes >= 2 && looks_like_a_host && !matches!(host, b"." | b"..")).then_some(path)
}
