//! One contract for both databases.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Store, every_store};
use futures_util::FutureExt;
use ipwarden_core::access_log::Mark;
use ipwarden_core::db::entries::{Entry, NewEntry, Put};
use ipwarden_core::db::leases::{self, Lease};
use ipwarden_core::db::list_changes::{self, List, Op};
use ipwarden_core::db::request_logs::{self, Filter, NewLogged};
use ipwarden_core::db::spool_positions::{self, Step};
use ipwarden_core::db::{
    Create, Db, DbError, allowed_ips, blocked_ips, imports, nodes, partitions,
};

#[tokio::test]
async fn migrating_twice_or_at_once_applies_everything_once() {
    every_store(async |store: Store| {
        let db = store.db.clone();
        assert_eq!(db.migrate().await.unwrap(), Vec::<String>::new());
        db.check_schema().await.unwrap();
    })
    .await;
    for store in common::empty_stores().await {
        assert!(matches!(store.db.check_schema().await, Err(DbError::OldSchema { .. })));
        let all: Vec<_> = (0..4)
            .map(|_| {
                let db = store.db.clone();
                tokio::spawn(async move { db.migrate().await })
            })
            .collect();
        let mut applied = Vec::new();
        for one in all {
            applied.extend(one.await.unwrap().unwrap());
        }
        applied.sort();
        let there =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/sqlite");
        assert_eq!(applied.len(), there.read_dir().unwrap().count());
        applied.dedup();
        assert_eq!(applied.len(), there.read_dir().unwrap().count(), "each by exactly one of four");
        store.db.check_schema().await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_fails_leaves_nothing_behind() {
    every_store(async |store: Store| {
        let outcome: Result<(), DbError> = store
            .db
            .transaction(|conn| {
                async move {
                    list_changes::next_versions(conn, 3).await?;
                    Err(DbError::Conflict("on purpose".to_owned()))
                }
                .boxed()
            })
            .await;
        assert!(matches!(outcome, Err(DbError::Conflict(_))));
        let next = store
            .db
            .transaction(|conn| list_changes::next_versions(conn, 1).boxed())
            .await
            .unwrap();
        assert_eq!(next, 1);
    })
    .await;
}

#[tokio::test]
async fn a_missing_store_is_named_with_its_absolute_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.db");
    let error = Db::open_sqlite(&path, Create::Never).await.err().unwrap();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(!path.exists());
}

fn entry(network: &str, origin: &str, expires_at: Option<DateTime<Utc>>) -> NewEntry {
    NewEntry {
        network: network.parse().unwrap(),
        reason: "because".to_owned(),
        origin: origin.to_owned(),
        created_by: "test".to_owned(),
        created_at: now(),
        expires_at,
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap()
}

#[tokio::test]
async fn there_is_one_entry_per_network_and_origin() {
    every_store(async |store: Store| {
        store
            .db
            .transaction(|conn| {
                async move {
                    let (first, put) =
                        blocked_ips::put(conn, entry("192.0.2.0/24", "manual", None)).await?;
                    assert_eq!(put, Put::Created);
                    assert_eq!(first.created_at, now());
                    let (again, put) =
                        blocked_ips::put(conn, entry("192.0.2.0/24", "manual", None)).await?;
                    assert_eq!((again.id, put), (first.id, Put::Unchanged));
                    let end = Some(now() + TimeDelta::hours(1));
                    let (updated, put) =
                        blocked_ips::put(conn, entry("192.0.2.0/24", "manual", end)).await?;
                    assert_eq!(
                        (updated.id, updated.expires_at, put),
                        (first.id, end, Put::Updated)
                    );
                    let (_, put) =
                        blocked_ips::put(conn, entry("192.0.2.0/24", "list:drop", None)).await?;
                    assert_eq!(put, Put::Created);
                    let removed =
                        blocked_ips::remove(conn, "192.0.2.0/24".parse().unwrap()).await?;
                    assert_eq!(removed.len(), 2);
                    Ok(())
                }
                .boxed()
            })
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn networks_are_found_from_above_and_from_below() {
    every_store(async |store: Store| {
        store
            .db
            .transaction(|conn| {
                async move {
                    let all = [
                        "0.0.0.0/0",
                        "10.0.0.0/8",
                        "10.2.0.0/16",
                        "10.2.3.0/24",
                        "10.2.3.4",
                        "10.2.4.0/24",
                        "::/0",
                        "2001:db8::/32",
                        "2001:db8::1",
                        "::ffff:0:0/95",
                    ];
                    for network in all {
                        allowed_ips::put(conn, entry(network, "manual", None)).await?;
                    }
                    let gone = entry("10.2.3.9", "manual", Some(now() - TimeDelta::seconds(1)));
                    allowed_ips::put(conn, gone).await?;
                    let names = |rows: Vec<Entry>| {
                        rows.iter().map(|row| row.network.to_string()).collect::<Vec<_>>()
                    };
                    let at = "10.2.3.9".parse().unwrap();
                    assert_eq!(
                        names(allowed_ips::covering(conn, at, now()).await?),
                        ["0.0.0.0/0", "10.0.0.0/8", "10.2.0.0/16", "10.2.3.0/24"]
                    );
                    let wide = "10.2.0.0/16".parse().unwrap();
                    assert_eq!(
                        names(allowed_ips::inside(conn, wide, now(), 10).await?),
                        ["10.2.0.0/16", "10.2.3.0/24", "10.2.3.4", "10.2.4.0/24"]
                    );
                    let v6 = "2001:db8::/32".parse().unwrap();
                    assert_eq!(
                        names(allowed_ips::inside(conn, v6, now(), 10).await?),
                        ["2001:db8::/32", "2001:db8::1"]
                    );
                    let everything = "::/0".parse().unwrap();
                    assert_eq!(allowed_ips::inside(conn, everything, now(), 10).await?.len(), 4);
                    assert_eq!(allowed_ips::listed(conn, now()).await?.len(), all.len());
                    assert_eq!(
                        allowed_ips::prune(conn, now(), 10).await?,
                        ["10.2.3.9".parse().unwrap()]
                    );
                    Ok(())
                }
                .boxed()
            })
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn changes_have_versions_without_gaps() {
    every_store(async |store: Store| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let db = store.db.clone();
                tokio::spawn(async move {
                    for step in 0..5 {
                        db.transaction(move |conn| {
                            async move {
                                let network = format!("192.0.2.{}", writer * 8 + step);
                                list_changes::record(
                                    conn,
                                    List::Blocked,
                                    Op::Set,
                                    &[Some(network.parse().unwrap()), None],
                                    now(),
                                )
                                .await
                            }
                            .boxed()
                        })
                        .await
                        .unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let all = store.db.run(|conn| list_changes::since(conn, 0, 1_000).boxed()).await.unwrap();
        let versions: Vec<i64> = all.iter().map(|change| change.version).collect();
        assert_eq!(versions, (1..=80).collect::<Vec<_>>());
    })
    .await;
}

fn logged(at: DateTime<Utc>, address: &str, path: &str) -> NewLogged {
    NewLogged {
        at,
        address: address.parse().unwrap(),
        method: "GET".to_owned(),
        path: path.to_owned(),
        status: 200,
        verdict: "allowed",
        sensitive: false,
        identity: None,
        country: Some("SE".to_owned()),
        city: None,
        asn: Some(4_294_967_295),
        user_agent: Some("curl/8".to_owned()),
        reference: None,
        node: "n1".into(),
        recorded_at: at,
    }
}

#[tokio::test]
async fn every_field_of_a_record_comes_back_and_so_does_its_absence() {
    every_store(async |store: Store| {
        let full = NewLogged {
            method: "PROPFIND".to_owned(),
            status: 429,
            verdict: "throttled",
            sensitive: true,
            identity: Some("user:ärger".to_owned()),
            city: Some("Malmö".to_owned()),
            reference: Some("0123456789abcdef".to_owned()),
            recorded_at: now() + TimeDelta::microseconds(1),
            ..logged(now(), "2001:db8::7", "/\u{1f6aa}")
        };
        let bare = NewLogged {
            country: None,
            asn: None,
            user_agent: None,
            ..logged(chrono::DateTime::UNIX_EPOCH, "192.0.2.255", "")
        };
        let batch = vec![full.clone(), bare.clone()];
        request_logs::write(&store.db, batch, ()).await.unwrap();
        let page = store
            .db
            .run(|conn| {
                async move { request_logs::page(conn, &Filter::default(), None, 10).await }.boxed()
            })
            .await
            .unwrap();
        // The latest first.
        assert_eq!(page.len(), 2);
        for (row, new) in page.iter().zip([full, bare]) {
            let back = NewLogged {
                at: row.at,
                address: row.address,
                method: row.method.clone(),
                path: row.path.clone(),
                status: row.status,
                verdict: new.verdict,
                sensitive: row.sensitive,
                identity: row.identity.clone(),
                country: row.country.clone(),
                city: row.city.clone(),
                asn: row.asn,
                user_agent: row.user_agent.clone(),
                reference: row.reference.clone(),
                node: row.node.as_str().into(),
                recorded_at: row.recorded_at,
            };
            assert_eq!((back, row.verdict.as_str()), (new.clone(), new.verdict));
        }
    })
    .await;
}

#[tokio::test]
async fn ids_keep_the_order_of_a_batch_whatever_its_addresses() {
    every_store(async |store: Store| {
        // More than one block of ids, all at once, from addresses that fall while requests go on.
        let rows = 12_000_u32;
        let address = |number: u32| std::net::Ipv4Addr::from(u32::MAX - number).to_string();
        let batch: Vec<_> = (0..rows)
            .map(|number| logged(now(), &address(number), &format!("/{number}")))
            .collect();
        request_logs::write(&store.db, batch, ()).await.unwrap();
        let page = store
            .db
            .run(|conn| {
                async move { request_logs::page(conn, &Filter::default(), None, 20_000).await }
                    .boxed()
            })
            .await
            .unwrap();
        let paths: Vec<_> = page.iter().rev().map(|row| row.path.clone()).collect();
        let expected: Vec<_> = (0..rows).map(|number| format!("/{number}")).collect();
        assert_eq!(paths, expected);
        assert!(page.is_sorted_by(|newer, older| newer.id > older.id));
    })
    .await;
}

#[tokio::test]
async fn records_come_back_as_they_were_in_pages_without_holes() {
    every_store(async |store: Store| {
        let db = &store.db;
        // Three days, one of them in the past, and many records of one microsecond.
        let rows: Vec<_> = (0..250)
            .map(|i| logged(now() - TimeDelta::days(i / 100 * 400), "2001:db8::7", "/a_%/b"))
            .chain([logged(now(), "192.0.2.1", "/a%_x"), logged(now(), "192.0.3.1", "/axx")])
            .collect();
        request_logs::write(db, rows, ()).await.unwrap();
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = db
                .run(move |conn| {
                    async move { request_logs::page(conn, &Filter::default(), after, 40).await }
                        .boxed()
                })
                .await
                .unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.at, last.id));
            seen.extend(page);
        }
        assert_eq!(seen.len(), 252);
        let ids: std::collections::BTreeSet<i64> = seen.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), 252);
        assert_eq!(seen[251].at, now() - TimeDelta::days(800));
        assert_eq!(seen[251].asn, Some(4_294_967_295));
        let found = |filter: Filter| async move {
            db.run(move |conn| {
                async move { request_logs::page(conn, &filter, None, 1_000).await }.boxed()
            })
            .await
            .unwrap()
        };
        let network = Some("192.0.2.0/24".parse().unwrap());
        let of_network = found(Filter { network, ..Filter::default() }).await;
        assert_eq!(of_network.len(), 1);
        assert_eq!(of_network[0].address.to_string(), "192.0.2.1");
        // % and _ mean themselves.
        let path_prefix = Some("/a%_".to_owned());
        assert_eq!(found(Filter { path_prefix, ..Filter::default() }).await.len(), 1);
        let (since, until) = (Some(now() - TimeDelta::days(500)), Some(now()));
        assert_eq!(found(Filter { since, until, ..Filter::default() }).await.len(), 100);
    })
    .await;
}

#[tokio::test]
async fn a_batch_whose_mark_conflicts_is_not_written() {
    every_store(async |store: Store| {
        let write = async |from, to| {
            let step = Step { segment: "s1".to_owned(), from, to, node: "n1".into(), at: now() };
            request_logs::write(&store.db, vec![logged(now(), "192.0.2.1", "/")], vec![step]).await
        };
        write(0, 10).await.unwrap();
        write(10, 20).await.unwrap();
        assert!(matches!(write(10, 20).await, Err(DbError::Conflict(_))));
        assert!(matches!(write(0, 20).await, Err(DbError::Conflict(_))));
        let count = store.db.run(|conn| request_logs::count(conn).boxed()).await.unwrap();
        assert_eq!(count, 2);
        let positions = store
            .db
            .run(|conn| spool_positions::of(conn, vec!["s1".to_owned(), "s2".to_owned()]).boxed())
            .await
            .unwrap();
        assert_eq!(positions, [("s1".to_owned(), 20)]);
    })
    .await;
}

#[tokio::test]
async fn an_import_that_lost_its_lease_writes_nothing() {
    every_store(async |store: Store| {
        let acquire = async |holder: &'static str, now: DateTime<Utc>| {
            let ttl = TimeDelta::seconds(30);
            let lease = store
                .db
                .transaction(move |conn| leases::acquire(conn, "import", holder, ttl, now).boxed());
            lease.await.unwrap().unwrap()
        };
        let clock = store.db.clock(now()).await.unwrap();
        let slow = acquire("slow", clock).await;
        let quick = acquire("quick", clock + TimeDelta::seconds(40)).await;
        let write = async |lease: &Lease, id, lines| {
            let mark = Mark { length: 9 * lines, digest: [7; 32], lines };
            let progress = imports::Progress { mark, records: lines, unreadable: 0 };
            let step = imports::Step {
                lease: lease.clone(),
                id,
                source: "access.log".to_owned(),
                created_by: "cli:test".to_owned(),
                started_at: now(),
                progress,
                now: now(),
            };
            request_logs::write(&store.db, vec![logged(now(), "192.0.2.1", "/")], step).await
        };
        let conflict = write(&slow, None, 1).await;
        assert!(matches!(conflict, Err(DbError::Conflict(_))), "{conflict:?}");
        let id = write(&quick, None, 1).await.unwrap();
        assert_eq!(write(&quick, Some(id), 2).await.unwrap(), id);
        let count = store.db.run(|conn| request_logs::count(conn).boxed()).await.unwrap();
        assert_eq!(count, 2);
        let marks = store.db.run(|conn| imports::marks(conn).boxed()).await.unwrap();
        assert_eq!(marks, [Mark { length: 18, digest: [7; 32], lines: 2 }]);
        let held = store.db.run(|conn| leases::holder(conn, "import", now()).boxed()).await;
        let (holder, until) = held.unwrap().unwrap();
        assert_eq!(holder, "quick");
        let lasts = until - store.db.clock(now()).await.unwrap();
        assert!(lasts <= quick.ttl && lasts > quick.ttl / 2, "each step keeps it: {lasts}");
    })
    .await;
}

#[tokio::test]
async fn retention_drops_old_days_but_not_what_was_imported_lately() {
    every_store(async |store: Store| {
        let old = now() - TimeDelta::days(40);
        let stale = logged(old, "192.0.2.1", "/stale");
        let mut imported = logged(old - TimeDelta::days(1), "192.0.2.1", "/imported");
        imported.recorded_at = now();
        let fresh = logged(now(), "192.0.2.1", "/fresh");
        request_logs::write(&store.db, vec![stale, imported, fresh], ()).await.unwrap();
        let dropped = partitions::drop_old(&store.db, TimeDelta::days(30), now()).await.unwrap();
        assert_eq!(dropped, 1);
        let left = store
            .db
            .run(|conn| {
                async move { request_logs::page(conn, &Filter::default(), None, 10).await }.boxed()
            })
            .await
            .unwrap();
        let paths: Vec<_> = left.iter().map(|row| row.path.as_str()).collect();
        assert_eq!(paths, ["/fresh", "/imported"]);
        // The dropped day is made again when it is needed.
        request_logs::write(&store.db, vec![logged(old, "192.0.2.1", "/again")], ()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_day_that_another_process_dropped_is_made_again() {
    every_store(async |store: Store| {
        let Some(url) = &store.postgres_url else { return };
        let other = Db::postgres(url, 2).unwrap();
        let old = now() - TimeDelta::days(40);
        let write = || request_logs::write(&store.db, vec![logged(old, "192.0.2.1", "/")], ());
        write().await.unwrap();
        assert_eq!(partitions::drop_old(&other, TimeDelta::days(30), now()).await.unwrap(), 1);
        let refused = write().await;
        assert!(matches!(refused, Err(DbError::Query(_))), "{refused:?}");
        write().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn only_nodes_seen_within_fifteen_seconds_are_live() {
    every_store(async |store: Store| {
        store
            .db
            .transaction(|conn| {
                async move {
                    let wrong = now() + TimeDelta::days(5_000);
                    nodes::beat(conn, "of-2040", "api", wrong, wrong).await?;
                    let late = now() + TimeDelta::seconds(14);
                    assert_eq!(nodes::beat(conn, "a", "api", now(), now()).await?, 1);
                    assert_eq!(nodes::beat(conn, "b", "api", late, late).await?, 2);
                    assert_eq!(nodes::beat(conn, "s", "scheduler", late, late).await?, 1);
                    let later = now() + TimeDelta::seconds(15);
                    assert_eq!(nodes::live(conn, "api", later).await?, 1);
                    nodes::leave(conn, "b").await?;
                    assert_eq!(nodes::live(conn, "api", later).await?, 0);
                    Ok(())
                }
                .boxed()
            })
            .await
            .unwrap();
    })
    .await;
}
