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

diesel::allow_tables_to_appear_in_same_query!(forgotten, forgotten_nodes);
