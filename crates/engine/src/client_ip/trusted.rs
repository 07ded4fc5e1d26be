//! The trusted addresses as sorted ranges, so that a look-up costs a few comparisons.

use std::net::IpAddr;

use crate::network::{Network, bits};

/// Disjoint inclusive ranges, by family and in order.
#[derive(Clone, Debug, Default)]
pub(super) struct TrustedSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl TrustedSet {
    pub(super) fn new<'a>(networks: impl Iterator<Item = &'a Network>) -> TrustedSet {
        let (v6, v4): (Vec<&Network>, Vec<&Network>) = networks.partition(|n| n.is_ipv6());
        let low_32_bits =
            |wide: u128| u32::try_from(wide & 0xffff_ffff).expect("masked to 32 bits");
        TrustedSet {
            v4: merged(v4.iter().map(|n| n.first_last()))
                .map(|(first, last)| (low_32_bits(first), low_32_bits(last)))
                .collect(),
            v6: merged(v6.iter().map(|n| n.first_last())).collect(),
        }
    }

    /// Whether a canonical address is in the set.
    #[inline]
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => holds(&self.v4, v4.to_bits()),
            IpAddr::V6(_) => holds(&self.v6, bits(address)),
        }
    }
}

#[inline]
fn holds<T: Ord + Copy>(ranges: &[(T, T)], place: T) -> bool {
    let above = ranges.partition_point(|(first, _)| *first <= place);
    above > 0 && place <= ranges[above - 1].1
}

/// CIDRs either nest or are disjoint, so that what begins inside another one ends there too.
fn merged(ranges: impl Iterator<Item = (u128, u128)>) -> impl Iterator<Item = (u128, u128)> {
    let mut ranges: Vec<(u128, u128)> = ranges.collect();
    ranges.sort_unstable_by_key(|(first, last)| (*first, u128::MAX - last));
    ranges.dedup_by(|inner, outer| inner.1 <= outer.1);
    ranges.into_iter()
}
