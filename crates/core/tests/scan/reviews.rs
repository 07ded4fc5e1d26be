//! What a person, or nobody, makes of a finding.

use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::FutureExt;
use ipwarden_core::db::entries::NewEntry;
use ipwarden_core::db::suspicious_ips::Status;
use ipwarden_core::db::{allowed_ips, audit_log, blocked_ips};
use ipwarden_core::scan::{self, Terms};

use crate::common::Store;
use crate::{at, burst, every_store, log, open, request, review, rows, run, terms};

#[tokio::test]
async fn a_trusted_proxy_is_not_found_and_an_allowed_address_is_never_blocked() {
    every_store(async |store: Store| {
        for address in ["10.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.9"] {
            log(&store, burst(address, at("10:00:00"), 101, TimeDelta::seconds(1))).await;
        }
        let allowed = NewEntry {
            network: "192.0.2.0/24".parse().unwrap(),
            reason: "our office".to_owned(),
            origin: "manual".to_owned(),
            created_by: "cli:anna".to_owned(),
            created_at: at("09:00:00"),
            expires_at: None,
        };
        store.db.run(move |conn| allowed_ips::put(conn, allowed).boxed()).await.unwrap();
        let terms = Arc::new(Terms {
            trusted: vec!["10.0.0.0/8".parse().unwrap()],
            own: vec!["198.51.100.1".parse().unwrap()],
            auto_block: true,
            ..Terms::default()
        });
        run(&store, &terms, at("11:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 volume 101", "198.51.100.1 volume 101"]);
        let all = rows(&store.db, Some(Status::Open)).await;
        let note = all.iter().find(|row| row.address.to_string() == "192.0.2.1").unwrap();
        let note = note.evidence["note"].as_str().unwrap();
        assert!(note.contains("on the allowlist"), "{note}");

        let blocked = rows(&store.db, Some(Status::Blocked)).await;
        assert_eq!(blocked.len(), 1);
        assert_eq!(blocked[0].address.to_string(), "203.0.113.9");
        assert_eq!(blocked[0].reviewed_by.as_deref(), Some("scan"));
        let now = at("11:00:11");
        let blocks = store.db.run(move |conn| blocked_ips::page(conn, None, 10, now).boxed()).await;
        let blocks = blocks.unwrap();
        assert_eq!((blocks.len(), blocks[0].origin.as_str()), (1, "scan"));
        // A day from the last request on, which was 58 minutes and a half ago.
        let lasts = blocks[0].expires_at.unwrap() - blocks[0].created_at;
        assert_eq!(lasts, at("10:01:40") + TimeDelta::hours(24) - at("11:00:10"));
        let audit = store.db.run(|conn| audit_log::page(conn, None, 10).boxed()).await.unwrap();
        assert_eq!((audit[0].actor.as_str(), audit[0].target.as_str()), ("scan", "203.0.113.9"));
    })
    .await;
}

#[tokio::test]
async fn hits_of_sensitive_paths_are_all_from_first_to_last_seen() {
    every_store(async |store: Store| {
        for hour in ["08:10:00", "08:20:00", "10:10:00", "11:10:00"] {
            log(&store, vec![request("192.0.2.1", at(hour), "/login")]).await;
        }
        run(&store, &terms(), at("09:00:00")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 2"]);
        run(&store, &terms(), at("12:00:00")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 4"]);
        let row = rows(&store.db, None).await.remove(0);
        assert_eq!((row.first_seen, row.last_seen), (at("08:10:00"), at("11:10:00")));
        assert_eq!(row.evidence["requests"][0]["at"], "2026-03-01T11:10:00Z");
    })
    .await;
}

#[tokio::test]
async fn a_dismissed_address_stays_dismissed_for_thirty_days() {
    every_store(async |store: Store| {
        log(&store, vec![request("192.0.2.1", at("10:10:00"), "/login")]).await;
        run(&store, &terms(), at("11:00:10")).await;
        let id = rows(&store.db, Some(Status::Open)).await[0].id;
        review(&store, id, Status::Dismissed, at("11:30:00")).await;

        log(&store, vec![request("192.0.2.1", at("11:10:00"), "/login")]).await;
        log(&store, burst("192.0.2.1", at("11:10:01"), 100, TimeDelta::seconds(1))).await;
        run(&store, &terms(), at("12:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 volume 101"], "another rule is another matter");

        let almost = at("10:20:00") + TimeDelta::days(30);
        log(&store, vec![request("192.0.2.1", almost, "/login")]).await;
        run(&store, &terms(), almost + TimeDelta::hours(1)).await;
        assert_eq!(open(&store).await, ["192.0.2.1 volume 101"]);

        let after = almost + TimeDelta::hours(1);
        log(&store, vec![request("192.0.2.1", after, "/login")]).await;
        run(&store, &terms(), after + TimeDelta::hours(1)).await;
        assert_eq!(open(&store).await, ["192.0.2.1 sensitive_path 1", "192.0.2.1 volume 101"]);
    })
    .await;
}

#[tokio::test]
async fn what_was_reviewed_is_not_put_up_again() {
    every_store(async |store: Store| {
        log(&store, burst("192.0.2.1", at("10:00:00"), 101, TimeDelta::seconds(30))).await;
        run(&store, &terms(), at("11:00:10")).await;
        let id = rows(&store.db, Some(Status::Open)).await[0].id;
        // It went on until the block.
        log(&store, burst("192.0.2.1", at("10:50:30"), 100, TimeDelta::seconds(20))).await;
        review(&store, id, Status::Blocked, at("11:30:00")).await;

        scan::run_between(&store.db, &terms(), (at("10:00:00"), at("12:00:00")), || at("12:00:10"))
            .await
            .unwrap();
        assert_eq!(open(&store).await, Vec::<String>::new());

        // The block ended, and he came again.
        log(&store, burst("192.0.2.1", at("15:00:00"), 120, TimeDelta::seconds(1))).await;
        run(&store, &terms(), at("16:00:10")).await;
        assert_eq!(open(&store).await, ["192.0.2.1 volume 120"]);
    })
    .await;
}
