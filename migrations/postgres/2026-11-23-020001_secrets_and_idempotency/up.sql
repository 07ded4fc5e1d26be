-- What every replica has to know and nobody else may: each is made by whoever needs it first.
create table secrets (
    name       text        primary key,
    secret     bytea       not null,
    created_at timestamptz not null
);

-- Answers to changes that were sent with an Idempotency-Key, for whoever sends one again. `request` is
-- the SHA-256 of method, path and body.
create table idempotency_keys (
    actor   text        not null,
    key     text        not null,
    request bytea       not null,
    status  smallint    not null,
    answer  text        not null,
    at      timestamptz not null,
    primary key (actor, key)
);
create index idempotency_keys_at on idempotency_keys (at);
