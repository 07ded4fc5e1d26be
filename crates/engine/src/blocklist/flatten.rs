//! Turns networks that overlap, nest and repeat into disjoint ranges with one answer each.
//!
//! Two networks are nested or disjoint, never half overlapping. So, sorted by first address with the
//! wider one first, they open and close like brackets, and one sweep with a stack is enough: whatever
//! the nesting, the work is the sort and then a constant per network.

use super::term::Term;

/// An IPv4 or IPv6 address as a number.
pub(super) trait Address: Copy + Ord {
    /// The last address of the network of this length that begins here.
    fn last_of(self, prefix: u8) -> Self;
    /// The address after this one, if there is one.
    fn next(self) -> Option<Self>;
    /// The address before this one, which is not the very first.
    fn before(self) -> Self;
}

impl Address for u32 {
    fn last_of(self, prefix: u8) -> u32 {
        self | u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0)
    }

    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }

    fn before(self) -> u32 {
        self - 1
    }
}

impl Address for u128 {
    fn last_of(self, prefix: u8) -> u128 {
        self | u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0)
    }

    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }

    fn before(self) -> u128 {
        self - 1
    }
}

/// A network as it goes in.
#[derive(Clone, Copy)]
pub(super) struct Covering<A> {
    pub(super) first: A,
    pub(super) prefix: u8,
    pub(super) term: Term,
}

/// A run of addresses with the same answer, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range<A> {
    pub(super) first: A,
    pub(super) last: A,
    pub(super) term: Term,
}

/// The disjoint ranges of `networks`, ascending; each carries the greatest term that covers it.
pub(super) fn flatten<A: Address>(mut networks: Vec<Covering<A>>) -> Vec<Range<A>> {
    networks.sort_unstable_by_key(|network| (network.first, network.prefix));
    let mut sweep =
        Sweep { ranges: Vec::with_capacity(networks.len()), open: Vec::new(), next: None };
    for network in networks {
        sweep.enter(network.first, network.first.last_of(network.prefix), network.term);
    }
    while let Some((last, term)) = sweep.open.pop() {
        sweep.leave(last, term);
    }
    sweep.ranges
}

struct Sweep<A> {
    ranges: Vec<Range<A>>,
    /// The networks around the current address from the widest to the narrowest, each as its last
    /// address and its term; terms ascend, for a network that changes no answer is not kept.
    open: Vec<(A, Term)>,
    /// The first address of the open networks that has no range yet; `None` past the last address.
    next: Option<A>,
}

impl<A: Address> Sweep<A> {
    fn enter(&mut self, first: A, last: A, term: Term) {
        while let Some((inner, answer)) = self.open.pop_if(|(inner, _)| *inner < first) {
            self.leave(inner, answer);
        }
        if let Some(&(_, outer)) = self.open.last() {
            if term <= outer {
                return;
            }
            if let Some(next) = self.next
                && next < first
            {
                self.emit(next, first.before(), outer);
            }
        }
        self.open.push((last, term));
        self.next = Some(first);
    }

    /// Closes the innermost network: what an inner one left of it becomes a range.
    fn leave(&mut self, last: A, term: Term) {
        if let Some(next) = self.next
            && next <= last
        {
            self.emit(next, last, term);
            self.next = last.next();
        }
    }

    fn emit(&mut self, first: A, last: A, term: Term) {
        match self.ranges.last_mut() {
            Some(before) if before.term == term && before.last.next() == Some(first) => {
                before.last = last
            }
            _ => self.ranges.push(Range { first, last, term }),
        }
    }
}
