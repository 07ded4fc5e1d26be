//! The tables as Diesel sees them: one `table!` for PostgreSQL and SQLite alike.

use super::types::{Addr, Json, Net, Ts};

diesel::table! {
    use diesel::sql_types::*;
    use super::{Addr, Ts};

    request_logs (id) {
        id -> BigInt,
        at -> Ts,
        address -> Addr,
        method -> Text,
        path -> Text,
        status -> SmallInt,
        verdict -> Text,
        sensitive -> Bool,
        identity -> Nullable<Text>,
        country -> Nullable<Text>,
        city -> Nullable<Text>,
        asn -> Nullable<BigInt>,
        user_agent -> Nullable<Text>,
        reference -> Nullable<Text>,
        node -> Text,
        recorded_at -> Ts,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    touched_hours (hour, node) {
        hour -> Ts,
        node -> Text,
        recorded_at -> Ts,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    request_hours (hour) {
        hour -> Ts,
        requests -> BigInt,
        blocked -> BigInt,
        throttled -> BigInt,
        counted_to -> Nullable<BigInt>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    request_tops (dimension, hour, key) {
        dimension -> Text,
        hour -> Ts,
        key -> Text,
        requests -> BigInt,
        blocked -> BigInt,
        throttled -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    request_floors (dimension, hour) {
        dimension -> Text,
        hour -> Ts,
        floor -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::{Net, Ts};

    blocked_ips (id) {
        id -> BigInt,
        network -> Net,
        reason -> Text,
        origin -> Text,
        created_by -> Text,
        created_at -> Ts,
        expires_at -> Nullable<Ts>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::{Net, Ts};

    allowed_ips (id) {
        id -> BigInt,
        network -> Net,
        reason -> Text,
        origin -> Text,
        created_by -> Text,
        created_at -> Ts,
        expires_at -> Nullable<Ts>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    list_version (id) {
        id -> Integer,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::{Net, Ts};

    list_changes (version) {
        version -> BigInt,
        list -> Text,
        op -> Text,
        network -> Nullable<Net>,
        at -> Ts,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::{Json, Net, Ts};

    suspicious_ips (id) {
        id -> BigInt,
        address -> Net,
        rule -> Text,
        status -> Text,
        first_seen -> Ts,
        last_seen -> Ts,
        hits -> BigInt,
        evidence -> Json,
        reviewed_by -> Nullable<Text>,
        reviewed_at -> Nullable<Ts>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    scan_runs (window_start) {
        window_start -> Ts,
        window_end -> Ts,
        scheduler -> Text,
        started_at -> Ts,
        finished_at -> Ts,
        findings -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    leases (name) {
        name -> Text,
        holder -> Text,
        fencing -> BigInt,
        expires_at -> Ts,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    nodes (node) {
        node -> Text,
        kind -> Text,
        started_at -> Ts,
        seen_at -> Ts,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    spool_positions (segment) {
        segment -> Text,
        position -> BigInt,
        node -> Text,
        updated_at -> Ts,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    imports (id) {
        id -> BigInt,
        source -> Text,
        length -> BigInt,
        digest -> Text,
        lines -> BigInt,
        records -> BigInt,
        unreadable -> BigInt,
        created_by -> Text,
        started_at -> Ts,
        finished_at -> Nullable<Ts>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    api_keys (id) {
        id -> Text,
        name -> Text,
        secret_hash -> Binary,
        role -> Text,
        created_by -> Text,
        created_at -> Ts,
        revoked_at -> Nullable<Ts>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::{Addr, Ts};

    bouncers (id) {
        id -> BigInt,
        key_id -> Text,
        address -> Addr,
        kind -> Nullable<Text>,
        version -> Nullable<Text>,
        first_seen -> Ts,
        last_pull -> Ts,
        list_version -> Nullable<BigInt>,
        pulled_at -> Nullable<Ts>,
        announced_at -> Nullable<Ts>,
        applied -> Nullable<BigInt>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::{Json, Ts};

    audit_log (id) {
        id -> BigInt,
        at -> Ts,
        actor -> Text,
        action -> Text,
        target -> Text,
        details -> Json,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    secrets (name) {
        name -> Text,
        secret -> Binary,
        created_at -> Ts,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    idempotency_keys (actor, key) {
        actor -> Text,
        key -> Text,
        request -> Binary,
        status -> SmallInt,
        answer -> Text,
        at -> Ts,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    users (name) {
        name -> Text,
        password_hash -> Text,
        role -> Text,
        epoch -> BigInt,
        created_by -> Text,
        created_at -> Ts,
        password_changed_at -> Ts,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::{Net, Ts};

    forgotten (id) {
        id -> BigInt,
        network -> Nullable<Net>,
        prefix -> SmallInt,
        salt -> Binary,
        digest -> Binary,
        at -> Ts,
        version -> BigInt,
        created_by -> Text,
        erased_at -> Nullable<Ts>,
        settled_at -> Nullable<Ts>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    forgotten_nodes (forgotten_id, node) {
        forgotten_id -> BigInt,
        node -> Text,
        confirmed_at -> Ts,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Ts;

    anonymised (id) {
        id -> Integer,
        until -> Ts,
    }
}

diesel::allow_tables_to_appear_in_same_query!(forgotten, forgotten_nodes);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use diesel::RunQueryDsl;

    use crate::db::{Create, Db};

    const PRIVACY: &str = include_str!("../../../../docs/PRIVACY.md");

    #[derive(diesel::QueryableByName)]
    struct Column {
        #[diesel(sql_type = diesel::sql_types::Text)]
        of: String,
        #[diesel(sql_type = diesel::sql_types::Text)]
        name: String,
    }

    type Columns = BTreeMap<String, BTreeSet<String>>;

    /// What stands between backticks in a cell.
    fn names(cell: &str) -> impl Iterator<Item = String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned)
    }

    #[tokio::test]
    async fn what_is_said_about_privacy_names_every_column_that_there_is() {
        let (_, rest) = PRIVACY.split_once("## Tables").unwrap();
        let (tables, _) = rest.split_once("## Files").unwrap();
        let mut told = Columns::new();
        for line in tables.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = line.split('|').collect();
            for table in names(cells[1]) {
                told.insert(table, names(cells[2]).collect());
            }
        }

        let dir = tempfile::tempdir().unwrap();
        let db = Db::open_sqlite(&dir.path().join("test.db"), Create::IfMissing).await.unwrap();
        db.migrate().await.unwrap();
        let Db::Sqlite(pool) = &db else { panic!("it is a file") };
        let mut connection = pool.dedicated().await.unwrap();
        let columns: Vec<Column> = diesel::sql_query(
            "select tables.name as \"of\", columns.name as name from sqlite_master tables \
             join pragma_table_info(tables.name) columns where tables.type = 'table' \
             and tables.name not like 'sqlite_%' and tables.name not like '\\_\\_%' escape '\\'",
        )
        .load(&mut connection)
        .unwrap();
        let mut there = Columns::new();
        for Column { of, name } in columns {
            there.entry(of).or_default().insert(name);
        }
        assert_eq!(told, there, "docs/PRIVACY.md on the left, the schema on the right");
    }
}
