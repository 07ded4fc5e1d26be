//! What a key looks like: `ipw_`, 12 characters of id, `_`, 52 characters of secret.

use sha2::{Digest, Sha256};

/// The SHA-256 of a secret.
pub(super) type Hash = [u8; 32];

const PREFIX: &str = "ipw_";
const ID_LENGTH: usize = 12;
const SECRET_BYTES: usize = 32;
/// 256 bits at 5 a character.
const SECRET_LENGTH: usize = 52;

/// Crockford's base 32 in lower case: no i, l, o or u, so that it survives being read aloud.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A key that has just been made.
pub(super) struct Minted {
    pub(super) id: String,
    pub(super) key: String,
    pub(super) hash: Hash,
}

/// Makes a key of 60 random bits of id and 256 of secret.
pub(super) fn mint() -> Minted {
    let mut random = [0; 8 + SECRET_BYTES];
    getrandom::fill(&mut random).expect("the kernel gives random bytes to every process");
    let (for_id, for_secret) = random.split_at(8);
    let mut id = base32(for_id);
    id.truncate(ID_LENGTH);
    let secret = base32(for_secret);
    let hash = hash(&secret);
    Minted { key: format!("{PREFIX}{id}_{secret}"), id, hash }
}

/// The id and the secret of a key; `None` for what cannot be one.
pub(super) fn parse(key: &str) -> Option<(&str, &str)> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    (id.len() == ID_LENGTH && secret.len() == SECRET_LENGTH).then_some((id, secret))
}

/// What is stored of a secret: the SHA-256 of its text.
pub(super) fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

fn base32(bytes: &[u8]) -> String {
    let (mut text, mut buffer, mut bits) = (String::new(), 0u32, 0u32);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(digit(buffer >> bits));
        }
    }
    if bits > 0 {
        text.push(digit(buffer << (5 - bits)));
    }
    text
}

fn digit(bits: u32) -> char {
    char::from(DIGITS[(bits & 31) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_the_bits_in_fives() {
        assert_eq!(base32(&[]), "");
        assert_eq!(base32(&[0xff]), "zw");
        assert_eq!(base32(&[0, 0, 0, 0, 1]), "00000001");
        assert_eq!(base32(&[0xff; SECRET_BYTES]).len(), SECRET_LENGTH);
    }

    #[test]
    fn a_key_is_read_as_it_was_made() {
        let (one, other) = (mint(), mint());
        assert_ne!(one.id, other.id);
        let (id, secret) = parse(&one.key).unwrap();
        assert_eq!((id, hash(secret)), (one.id.as_str(), one.hash));
        assert_eq!(one.key.len(), 69);
        for bad in ["", "ipw_", "ipw__", "ipw_0_0", &one.key[1..], &one.key[..68], "ipw_é_ü"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
