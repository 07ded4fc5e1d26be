use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::network::tests::any_address;

fn network(text: &str) -> Network {
    text.parse().expect("the test writes a network")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("the test writes an address")
}

fn verdict(target: &str) -> Option<&'static str> {
    let rails = Rails {
        trusted: &[network("10.1.0.0/16"), network("2001:db8:ffff::/48")],
        allowed: &[network("192.168.0.0/16"), network("203.0.113.77")],
        own: &[address("198.51.100.1"), address("::ffff:198.51.100.2")],
        operator: Some(address("198.51.100.200")),
    };
    check(&network(target), &rails).err().map(|refused| refused.rule())
}

#[rstest]
#[case("0.0.0.0/0", "too_wide")]
#[case("::/0", "too_wide")]
#[case("::ffff:0:0/96", "too_wide")]
#[case("128.0.0.0/1", "too_wide")]
#[case("198.0.0.0/7", "too_wide")]
#[case("2000::/3", "too_wide")]
#[case("2a00::/15", "too_wide")]
#[case("fc00::/7", "too_wide")]
#[case("fe80::/10", "too_wide")]
#[case("127.0.0.0/8", "loopback")]
#[case("127.0.0.1", "loopback")]
#[case("127.99.0.0/16", "loopback")]
#[case("::1", "loopback")]
#[case("::ffff:127.0.0.1", "loopback")]
#[case("::/16", "loopback")]
#[case("::/127", "loopback")]
#[case("0.0.0.0", "unspecified")]
#[case("0.0.0.0/8", "unspecified")]
#[case("::", "unspecified")]
#[case("::ffff:0.0.0.0", "unspecified")]
#[case("198.51.100.200", "operator")]
#[case("198.51.100.0/24", "operator")]
#[case("198.51.100.1", "own_address")]
#[case("198.51.100.2", "own_address")]
#[case("10.0.0.0/8", "trusted_proxy")]
#[case("10.1.2.3", "trusted_proxy")]
#[case("2001:db8:ffff::1", "trusted_proxy")]
#[case("2001:db8::/32", "trusted_proxy")]
#[case("192.168.1.1", "allowed")]
#[case("192.168.0.0/15", "allowed")]
#[case("203.0.113.0/24", "allowed")]
fn a_target_that_would_hurt_is_refused_with_its_rule(#[case] target: &str, #[case] rule: &str) {
    assert_eq!(verdict(target), Some(rule));
}

#[rstest]
#[case("203.0.113.9")]
#[case("11.0.0.0/8")]
#[case("10.2.0.0/16")]
#[case("192.169.0.0/16")]
#[case("2a00::/16")]
#[case("fd00::/16")]
#[case("2001:db8::9")]
#[case("126.0.0.0/8")]
#[case("128.0.0.0/8")]
#[case("0.0.0.1")]
#[case("::2")]
#[case("100.64.0.0/10")]
#[case("255.255.255.255")]
fn any_other_target_passes(#[case] target: &str) {
    assert_eq!(verdict(target), None);
}

#[test]
fn a_refusal_names_rule_entry_and_remedy() {
    let rails = Rails { allowed: &[network("192.168.0.0/16")], ..Rails::default() };
    let refused = check(&network("192.168.1.1"), &rails).expect_err("inside the allowlist");
    assert_eq!(
        refused.to_string(),
        "192.168.1.1 touches 192.168.0.0/16 on the allowlist, which beats every block; \
         --force blocks it nevertheless"
    );
    assert_eq!(
        refused.reason().to_string(),
        "192.168.1.1 touches 192.168.0.0/16 on the allowlist, which beats every block"
    );
}

#[test]
fn masked_host_bits_and_shared_addresses_are_told() {
    let told = |text| notices(&Network::parse(text).expect(text)).collect::<Vec<_>>();
    assert_eq!(told("203.0.113.9"), []);
    assert_eq!(told("93.184.0.1/24"), [Notice::HostBitsMasked(network("93.184.0.0/24"))]);
    assert_eq!(told("100.64.0.0/10"), [Notice::SharedUsers(network("100.64.0.0/10"))]);
    assert_eq!(told("100.127.255.255"), [Notice::SharedUsers(network("100.127.255.255"))]);
    assert_eq!(told("100.128.0.0"), []);
    assert_eq!(told("100.70.0.1/16").len(), 2);
}

proptest! {
    #[test]
    fn what_passes_hits_nothing_that_is_guarded(
        target in any_address(), prefix in 0u8..=128, guarded in any_address(), near in any::<bool>(),
    ) {
        let Ok(target) = Network::new(target, prefix) else { return Ok(()) };
        let guarded = if near { target.address() } else { canonical(guarded) };
        let entry = [Network::from(guarded)];
        let rails = [
            Rails { trusted: &entry, ..Rails::default() },
            Rails { allowed: &entry, ..Rails::default() },
            Rails { own: &[guarded], ..Rails::default() },
            Rails { operator: Some(guarded), ..Rails::default() },
        ];
        for rails in rails {
            let passes = check(&target, &rails).is_ok();
            prop_assert!(!(passes && target.contains(guarded)), "{} hits {}", target, guarded);
            prop_assert!(!passes || check(&target, &Rails::default()).is_ok());
        }
    }
}
