-- The log: one row per request, partitioned by day. Partitions are made by the service.
create sequence request_log_ids cache 100;
create table request_logs (
    id          bigint      not null default nextval('request_log_ids'),
    at          timestamptz not null,
    address     inet        not null,
    method      text        not null,
    path        text        not null,
    status      smallint    not null,
    verdict     text        not null check (verdict in ('allowed', 'blocked', 'throttled')),
    sensitive   boolean     not null,
    identity    text,
    country     text,
    city        text,
    asn         bigint,
    user_agent  text,
    reference   text,
    node        text        not null,
    recorded_at timestamptz not null
) partition by range (at);
alter sequence request_log_ids owned by request_logs.id;
-- Without autosummarize the running day would have no summary until it is vacuumed. recorded_at tells
-- retention which old days were imported lately, without reading them.
create index request_logs_at on request_logs using brin (at, recorded_at)
    with (pages_per_range = 32, autosummarize = on);
create index request_logs_address_at on request_logs (address, at);

-- Hours whose records changed since they were last judged; written with every batch, per node so
-- that replicas never wait for one another, and taken by the scan.
create table touched_hours (
    hour        timestamptz not null,
    node        text        not null,
    recorded_at timestamptz not null,
    primary key (hour, node)
);

create table blocked_ips (
    id         bigint      generated always as identity primary key,
    network    cidr        not null,
    reason     text        not null,
    origin     text        not null,
    created_by text        not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    unique (network, origin)
);
create index blocked_ips_expires_at on blocked_ips (expires_at) where expires_at is not null;

create table allowed_ips (
    id         bigint      generated always as identity primary key,
    network    cidr        not null,
    reason     text        not null,
    origin     text        not null,
    created_by text        not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    unique (network, origin)
);
create index allowed_ips_expires_at on allowed_ips (expires_at) where expires_at is not null;

-- One row, locked by every transaction that changes a list: versions are seen in order, without gaps.
create table list_version (
    id      integer primary key check (id = 1),
    version bigint  not null
);
insert into list_version (id, version) values (1, 0);

create table list_changes (
    version bigint      primary key,
    list    text        not null,
    op      text        not null,
    network cidr,
    at      timestamptz not null
);
create index list_changes_at on list_changes (at);

create table suspicious_ips (
    id          bigint      generated always as identity primary key,
    address     cidr        not null,
    rule        text        not null check (rule in ('volume', 'sensitive_path')),
    status      text        not null check (status in ('open', 'blocked', 'dismissed')),
    first_seen  timestamptz not null,
    last_seen   timestamptz not null,
    hits        bigint      not null,
    evidence    jsonb       not null,
    reviewed_by text,
    reviewed_at timestamptz
);
create unique index suspicious_ips_open on suspicious_ips (address, rule) where status = 'open';
create index suspicious_ips_address on suspicious_ips (address, rule, status);

create table scan_runs (
    window_start timestamptz primary key,
    window_end   timestamptz not null,
    scheduler    text        not null,
    started_at   timestamptz not null,
    finished_at  timestamptz not null,
    findings     bigint      not null
);

create table leases (
    name       text        primary key,
    holder     text        not null,
    fencing    bigint      not null,
    expires_at timestamptz not null
);

create table nodes (
    node       text        primary key,
    kind       text        not null,
    started_at timestamptz not null,
    seen_at    timestamptz not null
);

create table spool_positions (
    segment    text        primary key,
    position   bigint      not null,
    node       text        not null,
    updated_at timestamptz not null
);
create index spool_positions_updated_at on spool_positions (updated_at);

create table imports (
    id          bigint      generated always as identity primary key,
    source      text        not null,
    length      bigint      not null,
    digest      text        not null,
    lines       bigint      not null,
    records     bigint      not null,
    unreadable  bigint      not null,
    created_by  text        not null,
    started_at  timestamptz not null,
    finished_at timestamptz
);

create table api_keys (
    id          text        primary key,
    name        text        not null,
    secret_hash bytea       not null,
    role        text        not null check (role in ('user', 'reader', 'operator', 'admin', 'bouncer')),
    created_by  text        not null,
    created_at  timestamptz not null,
    revoked_at  timestamptz
);

create table audit_log (
    id      bigint      generated always as identity primary key,
    at      timestamptz not null,
    actor   text        not null,
    action  text        not null,
    target  text        not null,
    details jsonb       not null
);
create index audit_log_at on audit_log (at);
