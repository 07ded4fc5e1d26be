//! A person's word on findings, on both databases.

#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use chrono::{DateTime, Utc};
use common::{Store, every_store};
use futures_util::FutureExt;
use ipwarden_core::db::audit_log;
use ipwarden_core::db::suspicious_ips::{self, NewSuspiciousIp, Status};
use ipwarden_core::detect::Rule;
use ipwarden_core::lists::{self, Actor, Judgement, Rails, ReviewError, Standing};
use ipwarden_engine::network::Network;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap()
}

fn network(text: &str) -> Network {
    text.parse().unwrap()
}

fn operator() -> Actor {
    Actor { name: "cli:root".to_owned(), address: None }
}

fn rails() -> Rails {
    Rails { trusted: vec![network("10.0.0.0/8")], own: Vec::new() }
}

#[tokio::test]
async fn a_finding_is_reviewed_once_and_blocks_just_its_address() {
    every_store(async |store: Store| {
        let db = &store.db;
        let finding = |address: &str| NewSuspiciousIp {
            address: network(address),
            rule: Rule::Volume,
            first_seen: now(),
            last_seen: now(),
            hits: 240,
            evidence: serde_json::json!({ "requests": [] }),
            review: None,
        };
        let all = ["2001:db8::/64", "192.0.2.9", "10.0.0.1"].map(finding).to_vec();
        db.run(move |conn| suspicious_ips::insert(conn, all).boxed()).await.unwrap();
        let judge = |id, judgement| lists::review(db, id, judgement, operator(), rails(), now());
        let to_block =
            |force| Judgement::Block { term: "4h".parse().unwrap(), reason: None, force };

        let blocked = judge(1, to_block(false)).await.unwrap();
        assert_eq!((blocked.finding.status, blocked.version), (Status::Blocked, Some(1)));
        let entry = blocked.block.unwrap().entry;
        assert_eq!((entry.network, &*entry.origin), (network("2001:db8::/64"), "scan"));
        assert_eq!(entry.reason, "240 requests within one window of the scan");
        let again = judge(1, to_block(false)).await.unwrap();
        assert!(again.already && again.block.is_none() && again.version.is_none());
        let otherwise = judge(1, Judgement::Dismiss).await.unwrap_err();
        assert_eq!(
            otherwise.to_string(),
            "finding 1 (2001:db8::/64) was blocked by cli:root already"
        );

        let dismissed = judge(2, Judgement::Dismiss).await.unwrap();
        assert_eq!((dismissed.finding.status, dismissed.version), (Status::Dismissed, None));

        // Refused whole: the finding stays open.
        let refused = judge(3, to_block(false)).await.unwrap_err();
        assert!(matches!(refused, ReviewError::Refused(_)), "{refused}");
        let still = db.run(|conn| suspicious_ips::find(conn, 3).boxed()).await.unwrap().unwrap();
        assert_eq!(still.status, Status::Open);
        let forced = judge(3, to_block(true)).await.unwrap();
        assert_eq!(forced.block.unwrap().notices.len(), 1);
        assert!(matches!(judge(99, Judgement::Dismiss).await, Err(ReviewError::NoSuch(99))));

        let audit = db.run(|conn| audit_log::page(conn, None, 100).boxed()).await.unwrap();
        let verbs: Vec<_> = audit.into_iter().rev().map(|row| row.action).collect();
        assert_eq!(verbs, ["block", "review", "review", "review", "block", "review"]);
        let checked = lists::check(db, network("2001:db8::7"), &[], now()).await.unwrap();
        assert_eq!((checked.suspicious.len(), checked.verdict), (1, Standing::Blocked));
    })
    .await;
}
