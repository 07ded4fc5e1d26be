//! Networks as halves of halves: how a block around allowed networks falls into parts.

use ipwarden_engine::network::Network;

/// The networks that hold `network`, the widest first, itself last.
pub(super) fn around(network: Network) -> impl DoubleEndedIterator<Item = Network> {
    (0..=network.prefix()).filter_map(move |prefix| Network::new(network.address(), prefix).ok())
}

/// The network that this one is a half of.
pub(super) fn whole(network: Network) -> Option<Network> {
    Network::new(network.address(), network.prefix().checked_sub(1)?).ok()
}

/// Both halves of a network; none of one address.
pub(super) fn halves(network: Network) -> Option<[Network; 2]> {
    if network.is_address() {
        return None;
    }
    let prefix = network.prefix() + 1;
    let lower = Network::new(network.address(), prefix).ok()?;
    let upper = Network::new(network.last_address(), prefix).ok()?;
    Some([lower, upper])
}

/// All that can be a largest part of `block` without `allowed`, which lies inside it, or stops to be one
/// because of it.
pub(super) fn beside(block: Network, allowed: Network) -> impl Iterator<Item = Network> {
    around(allowed)
        .filter(move |network| network.prefix() >= block.prefix() && *network != allowed)
        .filter_map(halves)
        .flatten()
}

/// What lies inside `network`, itself included, as the bounds of an ordered map.
pub(super) fn inside(network: Network) -> std::ops::RangeInclusive<Network> {
    network..=Network::from(network.last_address())
}
