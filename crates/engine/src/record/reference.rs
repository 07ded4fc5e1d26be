//! The short text that an answer and its record share.

use std::fmt;
use std::str::FromStr;

/// Crockford's base 32: no I, L, O or U, so that it survives being read out on the telephone.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

const BITS: u32 = 60;
const LENGTH: usize = 12;

/// Names one answer, so that whoever got it can ask about it: twelve characters of base 32, 60 random bits.
///
/// It is no secret and proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference(u64);

impl Reference {
    /// A new reference; of a billion of them, two are the same with a probability of about one third.
    pub fn random() -> Reference {
        Reference(fastrand::u64(..1 << BITS))
    }

    /// The reference with these bits; `None` if there are more than 60.
    pub fn from_bits(bits: u64) -> Option<Reference> {
        (bits >> BITS == 0).then_some(Reference(bits))
    }

    /// The 60 bits of this reference.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The text of this reference, in ASCII.
    pub fn to_ascii(self) -> [u8; LENGTH] {
        let mut text = [0; LENGTH];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = DIGITS[(rest & 31) as usize];
            rest >>= 5;
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_ascii();
        f.pad(std::str::from_utf8(&text).expect("the digits are ASCII"))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Reads it as people type it: case does not matter, `I` and `L` are 1, `O` is 0.
    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.len() != LENGTH {
            return Err(ReferenceError);
        }
        text.bytes()
            .try_fold(0, |bits, byte| Some(bits << 5 | digit(byte)?))
            .map(Reference)
            .ok_or(ReferenceError)
    }
}

fn digit(byte: u8) -> Option<u64> {
    let byte = match byte.to_ascii_uppercase() {
        b'I' | b'L' => b'1',
        b'O' => b'0',
        other => other,
    };
    DIGITS.iter().position(|&digit| digit == byte).map(|value| value as u64)
}

/// A text that is no reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reference is twelve digits and letters, like 7Q0M3ZK8W2FA")]
pub struct ReferenceError;
