use std::net::IpAddr;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::network::tests::any_address;

const TRUSTED: [&str; 4] = ["10.0.0.0/8", "127.0.0.1", "fd00::/8", "fe80::/10"];

fn resolver() -> ClientIpResolver {
    ClientIpResolver::from_strings(DEFAULT_HEADER, &TRUSTED, "").expect("the list is sound")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("the test writes an address")
}

fn behind_proxy(lines: &[&str]) -> ClientIp {
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    resolver().resolve(address("10.0.0.1"), &lines)
}

#[rstest]
#[case("203.0.113.9", "203.0.113.9")]
#[case("203.0.113.9:1", "203.0.113.9")]
#[case("203.0.113.9:65535", "203.0.113.9")]
#[case("\t203.0.113.9\t", "203.0.113.9")]
#[case("2001:db8::9", "2001:db8::9")]
#[case("[2001:db8::9]", "2001:db8::9")]
#[case("[2001:db8::9]:443", "2001:db8::9")]
#[case("2001:db8::9:443", "2001:db8::9:443")]
#[case("::FFFF:203.0.113.9", "203.0.113.9")]
#[case("::ffff:cb00:7109", "203.0.113.9")]
#[case("[::ffff:203.0.113.9%eth0]:80", "203.0.113.9")]
#[case("2001:db8::9%eth0", "2001:db8::9")]
#[case("[2001:db8::9%25eth0]:80", "2001:db8::9")]
#[case("2001:db8::9%3", "2001:db8::9")]
#[case("255.255.255.255", "255.255.255.255")]
#[case("64:ff9b::10.0.0.1", "64:ff9b::a00:1")]
#[case("::10.0.0.1", "::a00:1")]
#[case("2002:a00:1::", "2002:a00:1::")]
fn an_element_that_is_an_address_is_the_client(#[case] element: &str, #[case] client: &str) {
    let found = behind_proxy(&[element]);
    assert_eq!(found.ip, address(client));
    assert_eq!((found.source, found.hops, found.is_proxy()), (Source::Header, 1, false));
}

#[rstest]
#[case("203.0.113.9:")]
#[case("203.0.113.9:0")]
#[case("203.0.113.9:65536")]
#[case("203.0.113.9:99999999999999999999")]
#[case("203.0.113.9:+80")]
#[case("203.0.113.9: 80")]
#[case("203.0.113.9:http")]
#[case("203.0.113.9:80:80")]
#[case("203.0.113.9%eth0")]
#[case("203.0.113.9.")]
#[case("203.0.113.9/32")]
#[case("203.0.113.9;x")]
#[case("203.0.113.9\r")]
#[case("203.0.113.9\u{a0}")]
#[case("203.0.113.9\0")]
#[case("２０３.0.113.9")]
#[case("3405803785")]
#[case("0xcb.0.0x71.9")]
#[case("1.2.3.4.5")]
#[case("[203.0.113.9]")]
#[case("[203.0.113.9]:80")]
#[case("[]")]
#[case("[")]
#[case("]")]
#[case("[]:80")]
#[case(":80")]
#[case(":")]
#[case("[2001:db8::9]:")]
#[case("[2001:db8::9]:0")]
#[case("[2001:db8::9]80")]
#[case("[2001:db8::9]]")]
#[case("[[2001:db8::9]]")]
#[case("[ 2001:db8::9 ]")]
#[case("2001:db8::9]")]
#[case("2001:db8::9]:80")]
#[case("2001:db8::9/128")]
#[case("2001:db8::9%")]
#[case("[2001:db8::9%]:80")]
#[case("2001:db8::9%eth0%1")]
#[case("%eth0")]
#[case("::")]
#[case("[::]:80")]
#[case("::%eth0")]
#[case("0.0.0.0:80")]
#[case("::ffff:0.0.0.0")]
#[case("1:2:3:4:5:6:7:8:9")]
#[case("1::2::3")]
#[case("12345::")]
#[case("::ffff:1.2.3")]
#[case("::ffff:01.2.3.4")]
#[case("for=203.0.113.9")]
#[case("_hidden")]
#[case("-")]
#[case("null")]
#[case("http://203.0.113.9")]
fn an_element_that_is_no_address_ends_the_walk_at_the_last_good_hop(#[case] element: &str) {
    let alone = behind_proxy(&[element]);
    assert_eq!((alone.ip, alone.degraded, alone.hops), (address("10.0.0.1"), true, 0), "{element}");
    let after_one = behind_proxy(&["203.0.113.66", element, "10.0.0.2"]);
    assert_eq!((after_one.ip, after_one.degraded), (address("10.0.0.2"), true), "{element}");
}

#[test]
fn an_untrusted_peer_is_the_client_in_canonical_form() {
    let found = resolver().resolve(address("::ffff:203.0.113.9"), &[b"10.0.0.1"]);
    assert_eq!(found.ip, address("203.0.113.9"));
    assert_eq!((found.source, found.hops, found.is_proxy()), (Source::Peer, 0, false));
}

#[test]
fn a_proxy_without_the_header_is_itself_the_client_and_known_as_a_proxy() {
    for lines in [&[][..], &[""], &[" ,\t, "]] {
        let found = behind_proxy(lines);
        assert_eq!((found.ip, found.source, found.hops), (address("10.0.0.1"), Source::Peer, 0));
        assert!(found.trusted && !found.degraded && found.is_proxy());
    }
}

#[test]
fn of_trusted_hops_alone_the_leftmost_is_the_client_and_known_as_a_proxy() {
    let found = behind_proxy(&["10.0.0.4, 10.0.0.3", "10.0.0.2"]);
    assert_eq!((found.ip, found.hops), (address("10.0.0.4"), 3));
    assert!(found.trusted && !found.degraded);
}

#[test]
fn sixty_four_elements_are_looked_at_and_no_more() {
    let hops = |count: usize| format!("203.0.113.9{}", ",10.0.0.2".repeat(count));
    let reached = behind_proxy(&[&hops(63)]);
    assert_eq!((reached.ip, reached.hops, reached.degraded), (address("203.0.113.9"), 64, false));
    let too_far = behind_proxy(&[&hops(64)]);
    assert_eq!((too_far.ip, too_far.hops, too_far.degraded), (address("10.0.0.2"), 64, true));
    let all_trusted = behind_proxy(&[&hops(64)["203.0.113.9,".len()..]]);
    assert_eq!((all_trusted.hops, all_trusted.degraded), (64, false));
}

#[test]
fn empty_elements_do_not_count_as_looked_at() {
    let line = format!("203.0.113.9{}10.0.0.2{}", ",".repeat(2000), ", ".repeat(2000));
    assert_eq!(behind_proxy(&[&line]).ip, address("203.0.113.9"));
}

#[rstest]
#[case::fits("203.0.113.9,", 8192 - 12, "203.0.113.9", false)]
#[case::straddles("203.0.113.9,", 8192 - 11, "10.0.0.1", true)]
#[case::straddles_by_all_but_one("203.0.113.9,", 8192 - 2, "10.0.0.1", true)]
#[case::is_out_of_sight("203.0.113.9,", 8192, "10.0.0.1", true)]
#[case::a_tail_that_would_parse("203.0.113.9", 8192 - 1, "10.0.0.1", true)]
fn eight_kibibytes_are_looked_at_and_no_element_in_part(
    #[case] left: &str,
    #[case] padding: usize,
    #[case] client: &str,
    #[case] degraded: bool,
) {
    let one_line = format!("{left}{}", " ".repeat(padding));
    let found = behind_proxy(&[&one_line]);
    assert_eq!((found.ip, found.degraded), (address(client), degraded));
    // The comma that joins two lines counts.
    let found = behind_proxy(&[left, &" ".repeat(padding.saturating_sub(1))]);
    assert_eq!((found.ip, found.degraded), (address(client), degraded));
}

#[test]
fn an_element_that_starts_at_the_bound_is_read() {
    let rest = " ".repeat(8192 - 11);
    let found = behind_proxy(&[&format!("203.0.113.66,203.0.113.9{rest}")]);
    assert_eq!((found.ip, found.degraded), (address("203.0.113.9"), false));
}

#[test]
fn a_line_beyond_the_bound_degrades_an_answer_that_is_a_trusted_hop() {
    let found =
        behind_proxy(&["203.0.113.9", "", &format!("10.0.0.3{}", " ".repeat(9000)), "10.0.0.2"]);
    assert_eq!((found.ip, found.degraded), (address("10.0.0.2"), true));
}

#[rstest]
#[case("10.0.0.0/33", "longest prefix")]
#[case("2001:db8::/129", "longest prefix")]
#[case("fe80::1%eth0", "zone")]
#[case("proxy.internal", "host names are not resolved")]
#[case("", "missing")]
#[case("*", "wildcard")]
#[case("10.0.0.0/255.0.0.0", "write 10.0.0.0/8")]
#[case("10.0.0.1:80", "write 10.0.0.1 alone")]
#[case("10.0.0.0-10.0.0.9", "CIDRs")]
#[case("10.0.0.0/8 127.0.0.1", "more than one")]
#[case("010.0.0.0/8", "leading zero")]
#[case("0.0.0.0/0", "i-understand")]
#[case("::/0", "i-understand")]
#[case("::ffff:0:0/96", "i-understand")]
#[case("0.0.0.0/1", "i-understand")]
#[case("10.0.0.0/7", "shorter than /8")]
#[case("2000::/3", "shorter than /16")]
#[case("2001::/15", "shorter than /16")]
#[case("fc00::/6", "shorter than /16")]
#[case("fe80::/9", "shorter than /16")]
fn a_trusted_entry_that_must_not_be_used_is_refused_by_name(
    #[case] entry: &str,
    #[case] says: &str,
) {
    let refusal = ClientIpResolver::from_strings(DEFAULT_HEADER, &["127.0.0.1", entry], "")
        .expect_err("must not start")
        .to_string();
    assert!(refusal.contains("client_ip.trusted_proxies") && refusal.contains(says), "{refusal}");
}

#[rstest]
#[case("10.0.0.0/8")]
#[case("2001::/16")]
#[case("fc00::/7")]
#[case("fd00::/8")]
#[case("fe80::/10")]
#[case(" 10.0.0.0/8 ")]
#[case("::ffff:10.0.0.0/104")]
fn a_trusted_entry_that_names_a_network_is_taken(#[case] entry: &str) {
    assert!(ClientIpResolver::from_strings(DEFAULT_HEADER, &[entry], "").is_ok());
}

#[test]
fn host_bits_in_a_trusted_entry_are_masked_and_told() {
    let resolver =
        ClientIpResolver::from_strings(DEFAULT_HEADER, &["10.1.2.3/8"], "").expect("taken");
    let read_as = "10.0.0.0/8".parse().expect("a network");
    assert_eq!(resolver.masked(), [("10.1.2.3/8".to_owned(), read_as)]);
    assert!(resolver.is_trusted(address("10.9.9.9")));
}

#[rstest]
#[case("Forwarded", "X-Forwarded-For")]
#[case("forwarded", "X-Forwarded-For")]
#[case("", "no header name")]
#[case("X-Forwarded-For:", "no header name")]
#[case("X Forwarded For", "no header name")]
#[case("X-Forwarded-For, X-Real-IP", "no header name")]
#[case("X-Förwarded", "no header name")]
#[case("X\r\nY", "no header name")]
fn a_header_that_cannot_be_read_is_refused(#[case] header: &str, #[case] says: &str) {
    let refusal =
        ClientIpResolver::from_strings(header, &TRUSTED, "").expect_err("refused").to_string();
    assert!(refusal.contains("client_ip.header") && refusal.contains(says), "{refusal}");
}

#[test]
fn everyone_is_trusted_only_by_the_exact_words() {
    for words in ["yes", "true", "I-understand", "i understand"] {
        let refusal = ClientIpResolver::from_strings(DEFAULT_HEADER, &["0.0.0.0/0"], words);
        assert_eq!(refusal.err(), Some(ClientIpConfigError::TrustEveryone(words.to_owned())));
    }
    let resolver = ClientIpResolver::from_strings(DEFAULT_HEADER, &["0.0.0.0/0"], TRUST_EVERYONE)
        .expect("taken");
    let client = resolver.resolve(address("198.51.100.7"), &[b"203.0.113.9"]);
    assert_eq!(client.ip, address("203.0.113.9"));
    assert!(!client.is_proxy(), "trusting everyone does not make every client a proxy");
    assert!(resolver.resolve(address("198.51.100.7"), &[]).is_proxy());
}

fn element() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any_address().prop_map(|address| address.to_string()),
        4 => (1u8..=254).prop_map(|low| format!("10.0.0.{low}")),
        1 => any_address().prop_map(|address| match address {
            IpAddr::V4(_) => format!("{address}:8080"),
            IpAddr::V6(_) => format!(" [{address}%eth0]:8080\t"),
        }),
        1 => "[ -~]{0,20}",
        1 => Just(String::new()),
    ]
}

fn lines() -> impl Strategy<Value = Vec<String>> {
    let line = prop::collection::vec(element(), 0..6).prop_map(|elements| elements.join(","));
    prop::collection::vec(line, 0..4)
}

fn bytes(lines: &[String]) -> Vec<&[u8]> {
    lines.iter().map(|line| line.as_bytes()).collect()
}

proptest! {
    #[test]
    fn what_stands_left_of_the_deciding_element_changes_nothing(
        lines in lines(), junk in prop::collection::vec(any::<u8>(), 0..9000), own_line in any::<bool>(),
    ) {
        let resolver = resolver();
        let peer = address("10.0.0.1");
        let client = "203.0.113.9";
        let mut told = vec![client.to_owned()];
        told.extend(lines);
        let before = resolver.resolve(peer, &bytes(&told));
        // Only where the walk ended at an untrusted or broken element did any decide.
        prop_assume!(!before.trusted || before.degraded);
        let mut forged = junk.clone();
        match own_line {
            true => {
                let mut longer: Vec<&[u8]> = vec![&forged];
                longer.extend(bytes(&told));
                prop_assert_eq!(resolver.resolve(peer, &longer), before);
            }
            false => {
                forged.push(b',');
                forged.extend_from_slice(told[0].as_bytes());
                let mut longer = bytes(&told);
                longer[0] = &forged;
                prop_assert_eq!(resolver.resolve(peer, &longer), before);
            }
        }
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_a_header_says(
        peer in any_address(), lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4),
    ) {
        let resolver = resolver();
        prop_assume!(!resolver.is_trusted(peer));
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(resolver.resolve(peer, &lines), resolver.resolve(peer, &[]));
        prop_assert_eq!(resolver.resolve(peer, &lines).ip, canonical(peer));
    }

    #[test]
    fn an_answer_told_again_is_the_same_answer(lines in lines()) {
        let resolver = resolver();
        let first = resolver.resolve(address("10.0.0.1"), &bytes(&lines));
        let text = first.ip.to_string();
        let again = resolver.resolve(address("10.0.0.1"), &[text.as_bytes()]);
        prop_assert_eq!((again.ip, again.degraded), (first.ip, false));
        prop_assert_eq!(resolver.resolve(first.ip, &[]).ip, first.ip);
    }

    #[test]
    fn an_answer_is_the_peer_or_stands_in_the_header(lines in lines()) {
        let found = resolver().resolve(address("10.0.0.1"), &bytes(&lines));
        let joined = lines.join(",");
        let stands_there = joined
            .split(',')
            .filter_map(|element| element::parse(element.trim_matches([' ', '\t']).as_bytes()))
            .any(|address| address == found.ip);
        prop_assert!(stands_there || found.ip == address("10.0.0.1"));
    }

    #[test]
    fn trust_is_what_the_networks_say(
        networks in prop::collection::vec((any_address(), 8u8..=128), 0..12), asked in any_address(),
    ) {
        let networks: Vec<Network> = networks
            .into_iter()
            .filter_map(|(address, prefix)| Network::new(address, prefix).ok())
            .collect();
        let resolver = ClientIpResolver::new(DEFAULT_HEADER, &networks, true).expect("all are trusted");
        let edges = networks.iter().flat_map(|network| {
            let (first, last) = network.first_last();
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
        });
        let asked = edges.map(|edge| IpAddr::from(edge.to_be_bytes())).chain([asked]);
        for address in asked {
            let expected = networks.iter().any(|network| network.contains(address));
            prop_assert_eq!(resolver.is_trusted(address), expected, "{}", address);
        }
    }
}
