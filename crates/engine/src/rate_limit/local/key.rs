//! What a log is found by.

use ahash::RandomState;

use crate::network::{Network, bits};
use crate::quota::Bucket;

/// Whose log it is, in 20 bytes; the shard adds the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The first address of a network, IPv4 mapped, or the hash of an identity.
    bits: [u32; 4],
    /// The policy, numbered by the shard; 0 until it is filled in.
    pub(super) class: u16,
    prefix: u8,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Network,
    Identity,
    /// Newcomers of one wider network, while memory is full.
    SharedNetwork,
    /// Newcomers whose hashes begin alike, while memory is full.
    SharedIdentity,
    /// All other newcomers, while even the room for shared logs is full.
    Everyone,
}

impl Key {
    pub(super) fn of(bucket: Bucket<'_>, hasher: &RandomState) -> Key {
        match bucket {
            Bucket::Network(network) => Key {
                bits: words(bits(network.address())),
                class: 0,
                prefix: network.prefix(),
                kind: Kind::Network,
            },
            Bucket::Identity(identity) => {
                let high = hasher.hash_one((0x9e37_u16, identity));
                let low = hasher.hash_one((0x79b9_u16, identity));
                Key {
                    bits: words(u128::from(high) << 64 | u128::from(low)),
                    class: 0,
                    prefix: 0,
                    kind: Kind::Identity,
                }
            }
        }
    }

    /// The class is left out: all logs of a client lie in one shard.
    #[inline]
    pub(super) fn hash(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one(self.bits)
    }

    pub(super) fn is_identity(&self) -> bool {
        matches!(self.kind, Kind::Identity | Kind::SharedIdentity)
    }

    /// Whether it is of addresses within `network` alone.
    pub(super) fn is_within(&self, network: &Network) -> bool {
        let (first, last) = network.first_last();
        self.kind == Kind::Network && (first..=last).contains(&self.value())
    }

    fn value(&self) -> u128 {
        self.bits.iter().fold(0, |value, word| value << 32 | u128::from(*word))
    }

    pub(super) fn is_shared(&self) -> bool {
        !matches!(self.kind, Kind::Network | Kind::Identity)
    }

    pub(super) fn is_everyone(&self) -> bool {
        self.kind == Kind::Everyone
    }

    /// The log that newcomers like this one share when there is no room for one each.
    pub(super) fn coarser(self) -> Key {
        let value = self.value();
        match self.kind {
            Kind::Network => {
                let is_ipv4 = value >> 32 == 0xffff;
                let kept = if is_ipv4 { 96 + 24 } else { 48 };
                let bits = words(value & (u128::MAX << (128 - kept)));
                Key { bits, prefix: 0, kind: Kind::SharedNetwork, ..self }
            }
            Kind::Identity => {
                let bits = words(value & (u128::MAX << 112));
                Key { bits, kind: Kind::SharedIdentity, ..self }
            }
            Kind::SharedNetwork | Kind::SharedIdentity | Kind::Everyone => {
                Key { bits: [0; 4], prefix: 0, kind: Kind::Everyone, ..self }
            }
        }
    }
}

/// Four words, so that a key is aligned to four bytes and an entry has no padding.
fn words(value: u128) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| (value >> shift) as u32)
}
