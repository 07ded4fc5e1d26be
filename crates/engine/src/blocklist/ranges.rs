//! Sorted disjoint ranges with an index: from an address to the entry that answers for it.
//!
//! IPv4 and IPv6 have halves of their own. IPv4 addresses spread well over their leading bits, so
//! there an index by leading bits leaves a handful of ranges to search, and a bitmap of the networks
//! (/24s, or larger ones if there are few ranges) that any range touches answers most misses with one
//! load. IPv6 networks crowd into few leading bits, so there a static B-tree finds the range in the same
//! number of steps wherever the networks lie.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::flatten::{Covering, Range, flatten};
use super::term::Term;
use super::{Hit, ListEntry};
use crate::network::canonical;

/// From an address to what the networks that cover it come to; immutable.
#[derive(Default)]
pub struct RangeMap {
    v4: Ranges4,
    v6: Ranges6,
}

impl RangeMap {
    /// Flattens entries in any order into disjoint ranges: at each address the entry that ends last
    /// answers, one without an end before any other, and of two that end together the one that the
    /// scan did not make.
    pub fn build(entries: impl IntoIterator<Item = ListEntry>) -> RangeMap {
        let entries = entries.into_iter();
        let mut v4 = Vec::with_capacity(entries.size_hint().0);
        let mut v6 = Vec::new();
        entries.for_each(|entry| {
            let (prefix, term) = (entry.network.prefix(), Term::of(&entry));
            match entry.network.address() {
                IpAddr::V4(first) => v4.push(Covering { first: first.to_bits(), prefix, term }),
                IpAddr::V6(first) => v6.push(Covering { first: first.to_bits(), prefix, term }),
            }
        });
        RangeMap { v4: Ranges4::new(flatten(v4)), v6: Ranges6::new(&flatten(v6)) }
    }

    /// What the entries that cover `ip` come to, whether or not that has ended.
    ///
    /// An IPv4-mapped address is looked up as the IPv4 address it stands for.
    pub fn find(&self, ip: IpAddr) -> Option<Hit> {
        self.find_term(ip).map(Term::hit)
    }

    /// The same, unless it has ended at `store_now` (microseconds since the Unix epoch).
    pub fn find_active(&self, ip: IpAddr, store_now: i64) -> Option<Hit> {
        self.find_term(ip).filter(|term| term.is_active(store_now)).map(Term::hit)
    }

    /// All disjoint ranges, ascending, IPv4 first: their first and last address and what the entries
    /// there come to, whether or not that has ended.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, IpAddr, Hit)> {
        let v4 = self.v4.ranges.iter().map(|range| {
            let [first, last] = [range.first, range.last].map(Ipv4Addr::from_bits);
            (first.into(), last.into(), range.term.hit())
        });
        let lasts = self.v6.levels.first().into_iter().flatten();
        let v6 = self.v6.firsts.iter().zip(lasts).zip(&self.v6.terms);
        let v6 = v6.map(|((first, last), term)| {
            let [first, last] = [first, last].map(|bits| Ipv6Addr::from_bits(*bits));
            (first.into(), last.into(), term.hit())
        });
        v4.chain(v6)
    }

    /// How many disjoint ranges there are; seldom more than networks, fewer where they touch.
    pub fn ranges(&self) -> usize {
        self.v4.ranges.len() + self.v6.terms.len()
    }

    /// Whether no address is covered.
    pub fn is_empty(&self) -> bool {
        self.ranges() == 0
    }

    /// How much memory this holds, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<RangeMap>() + self.v4.bytes() + self.v6.bytes()
    }

    fn find_term(&self, ip: IpAddr) -> Option<Term> {
        match canonical(ip) {
            IpAddr::V4(ip) => self.v4.find(ip.to_bits()),
            IpAddr::V6(ip) => self.v6.find(ip.to_bits()),
        }
    }
}

impl fmt::Debug for RangeMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeMap")
            .field("ipv4_ranges", &self.v4.ranges.len())
            .field("ipv6_ranges", &self.v6.terms.len())
            .field("bytes", &self.bytes())
            .finish()
    }
}

/// Up to here the ranges themselves stay in the nearest caches, and the bitmap would only push them out.
const FEW: usize = 4096;
/// Five to ten ranges are one or two cache lines; with fewer the index would no longer stay near.
const PER_BUCKET: usize = 5;
/// 2^20 buckets are 4 MB.
const MOST_INDEX_BITS: u32 = 20;
/// Bits of the bitmap for each range: seven in eight misses end at it, and it takes a part of what the ranges
/// take, so that it stays nearer than they do.
const BITS_EACH: usize = 8;
/// A bit per /24: 2 MB.
const MOST_TOUCHED_BITS: u32 = 24;

struct Ranges4 {
    ranges: Box<[Range<u32>]>,
    /// One bit per network of as many leading bits as it takes, set if any range touches it; empty for few
    /// ranges.
    touched: Box<[u64]>,
    /// How far to shift an address right to get its bit.
    touched_shift: u32,
    /// For each bucket of leading bits the first range that does not end before it; one more at the end.
    index: Box<[u32]>,
    /// How far to shift an address right to get its bucket.
    shift: u32,
}

impl Default for Ranges4 {
    fn default() -> Ranges4 {
        Ranges4::new(Vec::new())
    }
}

impl Ranges4 {
    fn new(ranges: Vec<Range<u32>>) -> Ranges4 {
        // At least two buckets, because a shift by 32 is none.
        let bits = (ranges.len() / PER_BUCKET + 1).ilog2().clamp(1, MOST_INDEX_BITS);
        let shift = u32::BITS - bits;
        let mut index = Vec::with_capacity((1 << bits) + 1);
        for (number, range) in (0u32..).zip(&ranges) {
            // The buckets that begin behind the previous range and not behind this one.
            let end = (range.last >> shift) as usize + 1;
            if index.len() < end {
                index.resize(end, number);
            }
        }
        let all = u32::try_from(ranges.len())
            .expect("there are at most 2^32 - 1 disjoint ranges in memory");
        index.resize((1 << bits) + 1, all);
        let touched_bits = (ranges.len() * BITS_EACH).next_power_of_two().ilog2();
        let touched_shift = u32::BITS - touched_bits.min(MOST_TOUCHED_BITS);
        let touched = match ranges.len() > FEW {
            true => touched(&ranges, touched_shift),
            false => Box::default(),
        };
        Ranges4 { ranges: ranges.into(), touched, touched_shift, index: index.into(), shift }
    }

    #[inline]
    fn find(&self, ip: u32) -> Option<Term> {
        if !self.touched.is_empty() {
            let bit = ip >> self.touched_shift;
            if self.touched[(bit >> 6) as usize] >> (bit & 63) & 1 == 0 {
                return None;
            }
        }
        let bucket = (ip >> self.shift) as usize;
        let (from, to) = (self.index[bucket] as usize, self.index[bucket + 1] as usize);
        let found = from + self.ranges[from..to].partition_point(|range| range.last < ip);
        let range = self.ranges.get(found)?;
        (range.first <= ip).then_some(range.term)
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.ranges) + size_of_val(&*self.touched) + size_of_val(&*self.index)
    }
}

fn touched(ranges: &[Range<u32>], shift: u32) -> Box<[u64]> {
    let mut words = vec![0u64; 1 << (u32::BITS - shift - 6)].into_boxed_slice();
    for range in ranges {
        let (first, last) = (range.first >> shift, range.last >> shift);
        let (from, to) = ((first >> 6) as usize, (last >> 6) as usize);
        let (head, tail) = (u64::MAX << (first & 63), u64::MAX >> (63 - (last & 63)));
        if from == to {
            words[from] |= head & tail;
        } else {
            words[from] |= head;
            words[from + 1..to].fill(u64::MAX);
            words[to] |= tail;
        }
    }
    words
}

/// How many addresses a node of the tree compares: two cache lines.
const NODE: usize = 8;

#[derive(Default)]
struct Ranges6 {
    firsts: Box<[u128]>,
    terms: Box<[Term]>,
    /// At 0 the last address of every range; at each further level the greatest of every [`NODE`] of
    /// the level below, until one node is left.
    levels: Box<[Box<[u128]>]>,
}

impl Ranges6 {
    fn new(ranges: &[Range<u128>]) -> Ranges6 {
        let mut level: Box<[u128]> = ranges.iter().map(|range| range.last).collect();
        let mut levels = Vec::new();
        while level.len() > NODE {
            let above = level.chunks(NODE).map(|node| node[node.len() - 1]).collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        levels.push(level);
        Ranges6 {
            firsts: ranges.iter().map(|range| range.first).collect(),
            terms: ranges.iter().map(|range| range.term).collect(),
            levels: levels.into(),
        }
    }

    #[inline]
    fn find(&self, ip: u128) -> Option<Term> {
        let mut found = 0;
        for level in self.levels.iter().rev() {
            let from = found * NODE;
            let node = level.get(from..)?;
            let node = &node[..node.len().min(NODE)];
            // Counting compares all of them, so that nothing has to be predicted.
            found = from + node.iter().map(|last| usize::from(*last < ip)).sum::<usize>();
        }
        (*self.firsts.get(found)? <= ip).then(|| self.terms[found])
    }

    fn bytes(&self) -> usize {
        let levels: usize = self.levels.iter().map(|level| size_of_val(&**level)).sum();
        size_of_val(&*self.firsts) + size_of_val(&*self.terms) + levels
    }
}
