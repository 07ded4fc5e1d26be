use std::net::IpAddr;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn network(text: &str) -> Network {
    text.parse().expect("the test writes a network")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("the test writes an address")
}

#[rstest]
#[case("203.0.113.9", "203.0.113.9", false)]
#[case("203.0.113.9/32", "203.0.113.9", false)]
#[case("93.184.0.1/24", "93.184.0.0/24", true)]
#[case("2001:DB8:0:0:0:0:0:9", "2001:db8::9", false)]
#[case("2001:db8::9/128", "2001:db8::9", false)]
#[case("2001:db8::1/64", "2001:db8::/64", true)]
#[case("::ffff:192.0.2.1", "192.0.2.1", false)]
#[case("::ffff:c000:201", "192.0.2.1", false)]
#[case("::ffff:192.0.2.0/120", "192.0.2.0/24", false)]
#[case("::ffff:192.0.2.7/120", "192.0.2.0/24", true)]
#[case("::ffff:0:0/96", "0.0.0.0/0", false)]
#[case("::ffff:192.0.2.1/64", "::/64", true)]
#[case("0.0.0.0/0", "0.0.0.0/0", false)]
#[case("::/0", "::/0", false)]
#[case("64:ff9b::1.2.3.4", "64:ff9b::102:304", false)]
fn a_network_has_one_canonical_form(#[case] text: &str, #[case] shown: &str, #[case] masked: bool) {
    let parsed = Network::parse(text).expect(text);
    assert_eq!(parsed.network.to_string(), shown);
    assert_eq!(parsed.masked, masked);
}

#[rstest]
#[case("", "missing")]
#[case("abc", "host names are not resolved")]
#[case("example.com", "host names are not resolved")]
#[case("1.2.3.4-1.2.3.9", "range as CIDRs")]
#[case("1.2.3.4,1.2.3.5", "more than one")]
#[case("1.2.3.4 1.2.3.5", "more than one")]
#[case("10.0.0.0/8,127.0.0.1", "more than one")]
#[case("10.0.0.0/24-10.0.1.0", "more than one")]
#[case(" 1.2.3.4", "four numbers")]
#[case("1.2.3.4\n", "four numbers")]
#[case("1.2.3.*", "wildcard")]
#[case("256.1.1.1", "0 to 255")]
#[case("1.2.3", "four numbers")]
#[case("127.1", "four numbers")]
#[case("0x7f.0.0.1", "four numbers")]
#[case("2130706433", "four numbers")]
#[case("1.2.3.4.", "four numbers")]
#[case("1.2.3.4.5", "four numbers")]
#[case("+1.2.3.4", "four numbers")]
#[case("1。2。3。4", "four numbers")]
#[case("010.0.0.1", "leading zero")]
#[case("10.0.0.0/33", "longest prefix here is /32")]
#[case("2001:db8::/129", "longest prefix here is /128")]
#[case("10.0.0.0/99999999999", "longest prefix here is /32")]
#[case("10.0.0.0/", "plain number")]
#[case("10.0.0.0/08", "plain number")]
#[case("10.0.0.0/-8", "plain number")]
#[case("10.0.0.0/+8", "plain number")]
#[case("10.0.0.0/ 8", "plain number")]
#[case("10.0.0.0/eight", "plain number")]
#[case("1.1.1.1/2/3", "plain number")]
#[case("/24", "four numbers")]
#[case("10/8", "four numbers")]
#[case("192.168.1.0/255.255.255.128", "write 192.168.1.0/25")]
#[case("192.168.1.7/255.255.255.255", "write 192.168.1.7/32")]
#[case("192.168.1.0/255.0.255.0", "no mask of leading bits")]
#[case("1.2.3.4:80", "write 1.2.3.4 alone")]
#[case("[2001:db8::9]:443", "write 2001:db8::9 alone")]
#[case("[2001:db8::9]", "write 2001:db8::9")]
#[case("fe80::1%eth0", "zone")]
#[case("1::2::3", "IPv6")]
#[case("12345::", "IPv6")]
#[case("2001:db8::g", "IPv6")]
#[case("1.2.3.4\u{1b}[31m", "\\u{1b}")]
fn what_is_no_network_is_refused_with_what_would_be_right(#[case] text: &str, #[case] says: &str) {
    let error = Network::parse(text).expect_err(text).to_string();
    assert!(error.contains(says), "{text:?} is answered {error:?}, without {says:?}");
}

#[test]
fn the_clients_of_a_network_are_those_that_it_is_counted_by() {
    let clients = |text: &str, prefix| -> Vec<String> {
        let network: Network = text.parse().unwrap();
        network.clients(prefix, 256).iter().map(Network::to_string).collect()
    };
    assert_eq!(clients("203.0.113.9", 64), ["203.0.113.9"]);
    assert_eq!(clients("203.0.113.8/31", 64), ["203.0.113.8", "203.0.113.9"]);
    assert_eq!(clients("203.0.113.0/24", 64).len(), 256);
    assert_eq!(clients("203.0.112.0/23", 64), Vec::<String>::new(), "too many");
    assert_eq!(clients("2001:db8::9", 64), ["2001:db8::/64"], "the one that it shares");
    assert_eq!(clients("2001:db8::/64", 64), ["2001:db8::/64"]);
    assert_eq!(clients("2001:db8::/64", 66)[3], "2001:db8:0:0:c000::/66");
    assert_eq!(clients("2001:db8::/64", 128), Vec::<String>::new());
    assert_eq!(clients("::/0", 128), Vec::<String>::new());
}

#[test]
fn a_long_text_is_cut_in_its_error() {
    let error = Network::parse(&"a".repeat(100_000)).expect_err("no address").to_string();
    assert!(error.len() < 200, "{} bytes", error.len());
}

#[test]
fn the_families_do_not_contain_each_other() {
    assert!(!network("::/0").contains(address("10.0.0.1")));
    assert!(!network("::/0").contains(address("::ffff:10.0.0.1")));
    assert!(!network("0.0.0.0/0").contains(address("2001:db8::1")));
    assert!(network("10.0.0.0/8").contains(address("::ffff:10.0.0.1")));
    assert!(!network("10.0.0.0/8").contains(address("64:ff9b::a00:1")));
}

#[test]
fn a_network_that_spans_the_place_of_ipv4_has_two_ranges_around_it() {
    let ranges: Vec<_> = network("::/0").ranges().collect();
    assert_eq!(ranges, [(0, (0xffff << 32) - 1), (1 << 48, u128::MAX)]);
    let ranges: Vec<_> = network("::fffe:0:0/95").ranges().collect();
    assert_eq!(ranges, [(0xfffe << 32, (0xffff << 32) - 1)]);
    assert_eq!(network("0.0.0.0/0").ranges().collect::<Vec<_>>(), [(0xffff << 32, (1 << 48) - 1)]);
}

#[test]
fn covering_is_reflexive_and_goes_downwards_only() {
    let wide = network("192.168.0.0/16");
    let narrow = network("192.168.1.0/24");
    assert!(wide.covers(&wide) && wide.covers(&narrow) && !narrow.covers(&wide));
    assert!(narrow.overlaps(&wide) && !narrow.overlaps(&network("192.168.2.0/24")));
}

#[test]
fn a_client_is_its_address_or_its_ipv6_network() {
    assert_eq!(Network::of_client(address("::ffff:192.0.2.7"), 64), network("192.0.2.7"));
    assert_eq!(Network::of_client(address("2001:db8:1:2:3::4"), 64), network("2001:db8:1:2::/64"));
}

#[test]
fn it_travels_as_a_string() {
    let json = serde_json::to_string(&network("10.0.0.0/8")).expect("a string");
    assert_eq!(json, "\"10.0.0.0/8\"");
    assert_eq!(
        serde_json::from_str::<Network>("\"10.1.2.3/8\"").expect("a network"),
        network("10.0.0.0/8")
    );
    let refusal = serde_json::from_str::<Network>("\"localhost\"").expect_err("no network");
    assert!(refusal.to_string().contains("host names are not resolved"));
}

#[test]
fn it_is_padded_whole() {
    assert_eq!(format!("{:<12}|", network("10.0.0.0/8")), "10.0.0.0/8  |");
    assert_eq!(format!("{:<12}|", network("10.0.0.1")), "10.0.0.1    |");
}

pub(crate) fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
    ]
}

proptest! {
    #[test]
    fn what_is_shown_is_read_back_as_the_same(address in any_address(), prefix in 0u8..=128) {
        let prefix = prefix.min(longest_prefix(address));
        let network = Network::new(address, prefix).expect("the prefix fits");
        let read = Network::parse(&network.to_string()).expect("what is shown can be read");
        prop_assert_eq!(read, Parsed { network, masked: false });
    }

    #[test]
    fn an_address_is_in_the_network_exactly_when_it_is_in_its_ranges(
        network in any_address(), prefix in 0u8..=128, near in any::<u128>(), flip in 0u32..128,
    ) {
        let prefix = prefix.min(longest_prefix(network));
        let network = Network::new(network, prefix).expect("the prefix fits");
        let neighbour = bits(network.address()) ^ 1 << flip;
        for place in [near, neighbour, network.first_last().0, network.first_last().1] {
            let address = canonical(Ipv6Addr::from_bits(place).into());
            let ranged = network.ranges().any(|(first, last)| first <= place && place <= last);
            prop_assert_eq!(network.contains(address), ranged, "{} in {}", address, network);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,40}|[0-9a-f:./%\\[\\]-]{0,40}") {
        if let Ok(parsed) = Network::parse(&text) {
            prop_assert_eq!(Network::parse(&parsed.network.to_string()).expect("canonical").network, parsed.network);
        }
    }
}
