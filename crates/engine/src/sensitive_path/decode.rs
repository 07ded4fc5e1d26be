//! Turns escapes and look-alikes into what they may stand for, in place and never longer.
//!
//! Where the result is one reading among others, the text says so: a slash that was written any other
//! way than `/` becomes [`ENCODED_SLASH`], which the walk takes as a separator and as part of a name, as
//! it does `\`; a folded character is preceded by [`FOLDED`], a control character, and names with
//! control characters are read with and without them.

use smallvec::SmallVec;

/// A path while it is decoded; few are longer than this, and those may allocate.
pub(super) type Text = SmallVec<[u8; 512]>;

/// Stands for a slash that was not written as one. What was received under this number, which no text in
/// UTF-8 holds, is [`OTHER`].
pub(super) const ENCODED_SLASH: u8 = 0xff;

/// Another byte that no text in UTF-8 holds, and that is a part of a name to everybody.
const OTHER: u8 = 0xfe;

/// The text of a path as it was received.
pub(super) fn text_of(path: &[u8]) -> Text {
    let own = |byte: &u8| if *byte == ENCODED_SLASH { OTHER } else { *byte };
    path.iter().map(own).collect()
}

/// Stands before a character that was folded, and alone for one that may be dropped.
const FOLDED: u8 = 0x1a;

/// Decodes `%XX` and `%uXXXX` once; broken escapes stay. Says whether there was any.
pub(super) fn decode_escapes(text: &mut Text) -> bool {
    let Some(first) = text.iter().position(|byte| *byte == b'%') else { return false };
    let bytes = text.as_mut_slice();
    let (mut read, mut write) = (first, first);
    while let Some(byte) = bytes.get(read).copied() {
        if byte != b'%' {
            bytes[write] = byte;
            (read, write) = (read + 1, write + 1);
            continue;
        }
        let (width, character) = escape(&bytes[read..]);
        let mut utf8 = [0; 4];
        let decoded = match character {
            Character::Byte(b'/') => &[ENCODED_SLASH],
            Character::Byte(ENCODED_SLASH) => &[OTHER],
            Character::Byte(ref byte) => std::slice::from_ref(byte),
            // At most three bytes for an escape of six.
            Character::Wide(wide) => wide.encode_utf8(&mut utf8).as_bytes(),
        };
        bytes[write..write + decoded.len()].copy_from_slice(decoded);
        (read, write) = (read + width, write + decoded.len());
    }
    text.truncate(write);
    write < read
}

enum Character {
    Byte(u8),
    Wide(char),
}

/// What the escape stands for that the text begins with, and how many bytes it takes. A broken one
/// is a percent sign.
fn escape(text: &[u8]) -> (usize, Character) {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let number = |mut digits: std::ops::Range<usize>| {
        digits.try_fold(0, |number, at| digit(at).map(|digit| number * 16 + digit))
    };
    if let Some(Ok(byte)) = number(1..3).map(u8::try_from) {
        return (3, Character::Byte(byte));
    }
    let wide = match text.get(1) {
        Some(b'u' | b'U') => number(2..6).and_then(char::from_u32),
        _ => None,
    };
    match wide.map(|wide| (wide, u8::try_from(wide))) {
        Some((_, Ok(ascii @ ..0x80))) => (6, Character::Byte(ascii)),
        Some((wide, _)) => (6, Character::Wide(wide)),
        None => (1, Character::Byte(b'%')),
    }
}

/// Folds overlong UTF-8, full-width forms and other look-alikes of ASCII, and marks what some
/// readers drop.
pub(super) fn fold_look_alikes(text: &mut Text) {
    let Some(first) = text.iter().position(|byte| !byte.is_ascii()) else { return };
    let bytes = text.as_mut_slice();
    let (mut read, mut write) = (first, first);
    while let Some(byte) = bytes.get(read).copied() {
        let (width, folded) = match byte {
            ..0x80 => (1, Folded::Same(byte)),
            _ => look_alike(&bytes[read..]),
        };
        // No sequence is shorter than what it is folded to.
        match folded {
            Folded::Same(byte) => bytes[write] = byte,
            Folded::To(b'/') => bytes[write] = ENCODED_SLASH,
            Folded::To(b'\\') => bytes[write] = b'\\',
            Folded::Dropped => bytes[write] = FOLDED,
            Folded::To(ascii) => {
                bytes[write] = FOLDED;
                write += 1;
                bytes[write] = ascii;
            }
        }
        write += 1;
        read += width;
    }
    text.truncate(write);
}

enum Folded {
    Same(u8),
    To(u8),
    Dropped,
}

/// What a text that begins outside ASCII begins with, and how many bytes of it that takes.
fn look_alike(text: &[u8]) -> (usize, Folded) {
    match *text {
        // Decoders that do not check the second byte take any: `%c0%2f`, `%c1%1c`. Only `/` and
        // `%` as they stand mean themselves to all.
        [0xc0, ENCODED_SLASH, ..] => (2, Folded::To(b'/')),
        [lead @ 0xc0..=0xc1, next, ..] if !matches!(next, b'/' | b'%') => {
            (2, Folded::To((lead & 1) << 6 | next & 0x3f))
        }
        // No-break space and next line are white space to many; a soft hyphen is not seen.
        [0xc2, 0x85 | 0xa0, ..] => (2, Folded::To(b' ')),
        [0xc2, 0xad, ..] => (2, Folded::Dropped),
        // Zero-width characters and direction marks are not seen; line separators are white space.
        [0xe2, 0x80, 0x8b..=0x8f, ..] | [0xef, 0xbb, 0xbf, ..] => (3, Folded::Dropped),
        [0xe2, 0x80, 0xa8..=0xa9, ..] | [0xe3, 0x80, 0x80, ..] => (3, Folded::To(b' ')),
        // One dot leader, fraction slash, division slash, set minus.
        [0xe2, 0x80, 0xa4, ..] => (3, Folded::To(b'.')),
        [0xe2, 0x81, 0x84, ..] | [0xe2, 0x88, 0x95, ..] => (3, Folded::To(b'/')),
        [0xe2, 0x88, 0x96, ..] => (3, Folded::To(b'\\')),
        // Full-width forms, U+FF01 to U+FF5E, are ASCII 0x21 to 0x7E in their order.
        [0xef, 0xbc, low @ 0x81..=0xbf, ..] => (3, Folded::To(low - 0x60)),
        [0xef, 0xbd, low @ 0x80..=0x9e, ..] => (3, Folded::To(low - 0x20)),
        [lead, ..] => overlong(lead, text).unwrap_or((1, Folded::Same(lead))),
        [] => (0, Folded::Dropped),
    }
}

/// ASCII in a sequence of three to six bytes, which no UTF-8 allows (RFC 3629, 3).
fn overlong(lead: u8, text: &[u8]) -> Option<(usize, Folded)> {
    let width = match lead {
        0xe0 => 3,
        0xf0 => 4,
        0xf8 => 5,
        0xfc => 6,
        _ => return None,
    };
    let (last, zeros) = text.get(1..width)?.split_last()?;
    let (high, zeros) = zeros.split_last()?;
    let is_ascii = matches!(high, 0x80 | 0x81) && matches!(last, 0x80..=0xbf);
    (is_ascii && zeros.iter().all(|zero| *zero == 0x80))
        .then_some((width, Folded::To((high & 1) << 6 | last & 0x3f)))
}
