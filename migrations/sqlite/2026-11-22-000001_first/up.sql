-- The log: one row per request.
-- Times are microseconds since the Unix epoch, UTC. An address is a family byte (4 or 6) and 16 bytes
-- (IPv4 mapped), a network the same with its prefix length behind; so both sort and compare as bytes.
create table request_logs (
    id          integer primary key,
    at          integer not null,
    address     blob    not null,
    method      text    not null,
    path        text    not null,
    status      integer not null,
    verdict     text    not null check (verdict in ('allowed', 'blocked', 'throttled')),
    sensitive   boolean not null,
    identity    text,
    country     text,
    city        text,
    asn         integer,
    user_agent  text,
    reference   text,
    node        text    not null,
    recorded_at integer not null
);
create index request_logs_at on request_logs (at);
create index request_logs_address_at on request_logs (address, at);

-- Hours whose records changed since they were last judged; written with every batch, per node so
-- that replicas never wait for one another, and taken by the scan.
create table touched_hours (
    hour        integer not null,
    node        text    not null,
    recorded_at integer not null,
    primary key (hour, node)
);

create table blocked_ips (
    id         integer primary key autoincrement,
    network    blob    not null,
    reason     text    not null,
    origin     text    not null,
    created_by text    not null,
    created_at integer not null,
    expires_at integer,
    unique (network, origin)
);
create index blocked_ips_expires_at on blocked_ips (expires_at) where expires_at is not null;

create table allowed_ips (
    id         integer primary key autoincrement,
    network    blob    not null,
    reason     text    not null,
    origin     text    not null,
    created_by text    not null,
    created_at integer not null,
    expires_at integer,
    unique (network, origin)
);
create index allowed_ips_expires_at on allowed_ips (expires_at) where expires_at is not null;

-- One row, locked by every transaction that changes a list: versions are seen in order, without gaps.
create table list_version (
    id      integer primary key check (id = 1),
    version integer not null
);
insert into list_version (id, version) values (1, 0);

create table list_changes (
    version integer primary key,
    list    text    not null,
    op      text    not null,
    network blob,
    at      integer not null
);
create index list_changes_at on list_changes (at);

create table suspicious_ips (
    id          integer primary key autoincrement,
    address     blob    not null,
    rule        text    not null check (rule in ('volume', 'sensitive_path')),
    status      text    not null check (status in ('open', 'blocked', 'dismissed')),
    first_seen  integer not null,
    last_seen   integer not null,
    hits        integer not null,
    evidence    text    not null,
    reviewed_by text,
    reviewed_at integer
);
create unique index suspicious_ips_open on suspicious_ips (address, rule) where status = 'open';
create index suspicious_ips_address on suspicious_ips (address, rule, status);

create table scan_runs (
    window_start integer primary key,
    window_end   integer not null,
    scheduler    text    not null,
    started_at   integer not null,
    finished_at  integer not null,
    findings     integer not null
);

create table leases (
    name       text primary key,
    holder     text    not null,
    fencing    integer not null,
    expires_at integer not null
);

create table nodes (
    node       text primary key,
    kind       text    not null,
    started_at integer not null,
    seen_at    integer not null
);

create table spool_positions (
    segment    text primary key,
    position   integer not null,
    node       text    not null,
    updated_at integer not null
);
create index spool_positions_updated_at on spool_positions (updated_at);

create table imports (
    id          integer primary key autoincrement,
    source      text    not null,
    length      integer not null,
    digest      text    not null,
    lines       integer not null,
    records     integer not null,
    unreadable  integer not null,
    created_by  text    not null,
    started_at  integer not null,
    finished_at integer
);

create table api_keys (
    id          text primary key,
    name        text    not null,
    secret_hash blob    not null,
    role        text    not null check (role in ('user', 'reader', 'operator', 'admin', 'bouncer')),
    created_by  text    not null,
    created_at  integer not null,
    revoked_at  integer
);

create table audit_log (
    id      integer primary key autoincrement,
    at      integer not null,
    actor   text    not null,
    action  text    not null,
    target  text    not null,
    details text    not null
);
create index audit_log_at on audit_log (at);
