//! The addresses of this machine, as the kernel lists them.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is read of either list; a router's table of routes may be far longer.
const MOST_BYTES: u64 = 4 << 20;

/// Every address of this machine in this network namespace, without loopback; empty where the kernel
/// does not tell (it does on Linux).
pub fn own_addresses() -> Vec<IpAddr> {
    let v4 = local_v4(&read("/proc/net/fib_trie")).map(IpAddr::V4).collect::<Vec<_>>();
    let v6 = local_v6(&read("/proc/net/if_inet6")).map(IpAddr::V6).collect::<Vec<_>>();
    let mut all: Vec<_> = v4.into_iter().chain(v6).filter(|own| !own.is_loopback()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn read(path: &str) -> String {
    let mut text = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text));
    match read {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    }
}

/// In the trie of routes, an address and below it `/32 host LOCAL`.
fn local_v4(fib_trie: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut leaf = None;
    fib_trie.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
            return None;
        }
        if line == "/32 host LOCAL" { leaf } else { None }
    })
}

/// Each line begins with the 32 hexadecimal digits of an address.
fn local_v6(if_inet6: &str) -> impl Iterator<Item = Ipv6Addr> {
    if_inet6
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|digits| digits.len() == 32)
        .filter_map(|digits| u128::from_str_radix(digits, 16).ok())
        .map(Ipv6Addr::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_read() {
        let fib_trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
            |-- 192.0.2.0\n  /24 link UNICAST\n|-- 192.0.2.2\n   /32 host LOCAL\n\
            |-- 192.0.2.255\n  /32 link BROADCAST\n|-- bad\n   /32 host LOCAL\n";
        assert_eq!(local_v4(fib_trie).collect::<Vec<_>>(), [Ipv4Addr::new(192, 0, 2, 2)]);
        let if_inet6 = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
            00000000000000000000000000000001 01 80 10 80       lo\nbad 1\n\n";
        let read: Vec<_> = local_v6(if_inet6).map(|address| address.to_string()).collect();
        assert_eq!(read, ["fe80::fc:ff:fe00:1", "::1"]);
    }

    #[test]
    fn this_machine_has_addresses_but_loopback_is_none_of_them() {
        assert!(own_addresses().iter().all(|own| !own.is_loopback()));
        // A socket that is bound to an address of another network namespace would fail.
        for own in own_addresses().into_iter().filter(IpAddr::is_ipv4) {
            std::net::UdpSocket::bind((own, 0)).unwrap();
        }
    }
}
