use super::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or_default()
}

fn told(blocks: &Blocks) -> Vec<String> {
    let told = blocks.items.iter().map(|item| {
        let reason = item.reason.as_deref().unwrap_or("-");
        let ends = item.ends.map_or_else(|| "never".to_owned(), |ends| ends.to_rfc3339());
        format!("{} {ends} {reason}", item.target.network)
    });
    told.collect()
}

/// As the documentation of CrowdSec shows it.
const RAW: &str = "\
id,source,ip,reason,action,country,as,events_count,expiration,simulated,alert_id
4,crowdsec,Ip:192.0.2.1,crowdsecurity/ssh-bf,ban,FR,64496 Example,6,3h51m57.12s,false,7
5,cscli,Range:198.51.100.0/24,manual 'ban',ban,,,1,167h59m59s,false,8
6,CAPI,Ip:2001:db8::7,http:scan,ban,,,0,10m,false,9
7,cscli,Ip:192.0.2.2,x,captcha,,,1,1h,false,10
8,cscli,Country:FR,x,ban,,,1,1h,false,11
9,cscli,Ip:192.0.2.3,x,ban,,,1,-1h2m,false,12
10,cscli,Ip:192.0.2.4,x,ban,,,1,1h,true,13
";

const JSON: &str = r#"[
 {"capacity": 5, "created_at": "2026-11-22T10:00:00Z", "decisions": [
   {"duration": "3h51m57.12s", "id": 4, "origin": "crowdsec", "scenario": "crowdsecurity/ssh-bf",
    "scope": "Ip", "simulated": false, "type": "ban", "value": "192.0.2.1"}],
  "events": null, "source": {"scope": "Ip", "value": "192.0.2.1"}},
 {"decisions": null},
 {"duration": "167h59m59s", "origin": "cscli", "scenario": "manual 'ban'", "scope": "Range",
  "type": "ban", "value": "198.51.100.0/24"}
]"#;

#[test]
fn decisions_of_crowdsec_are_read_in_both_forms() {
    let now = at("2026-11-22T12:00:00Z");
    let raw = crowdsec::blocks(RAW, now).expect("a list");
    let both = [
        "192.0.2.1 2026-11-22T15:51:58+00:00 crowdsec: crowdsecurity/ssh-bf (crowdsec)",
        "198.51.100.0/24 2026-11-29T11:59:59+00:00 crowdsec: manual 'ban' (cscli)",
    ];
    assert_eq!(told(&raw)[..2], both);
    assert_eq!(told(&raw)[2], "2001:db8::7 2026-11-22T12:10:00+00:00 crowdsec: http:scan (CAPI)");
    let why: Vec<String> =
        raw.left_out.iter().map(|(why, count)| format!("{count} {why}")).collect();
    assert_eq!(
        why,
        [
            "1 it had ended",
            "1 it was only simulated",
            "1 its scope is `Country`, and not an address",
            "1 its type is `captcha`, and not `ban`",
        ]
    );
    let json = crowdsec::blocks(JSON, now).expect("a list");
    assert_eq!(told(&json), both);
    for nothing in ["null", "[]", "", "\u{feff}\n"] {
        assert_eq!(crowdsec::blocks(nothing, now).expect("a list"), Blocks::default(), "{nothing}");
    }
}

#[test]
fn what_is_no_list_of_crowdsec_says_so() {
    let now = at("2026-11-22T12:00:00Z");
    for (text, says) in [
        ("{\"message\": \"access forbidden\"}", "cscli decisions list -o json"),
        ("[1]", "cscli decisions list -o json"),
        ("ip\n192.0.2.1\n", "the columns ip, action and expiration are missing"),
        ("\u{0}\u{1}\u{2}", "cscli decisions list -o raw"),
    ] {
        let error = crowdsec::blocks(text, now).expect_err("no list").to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}
