-- What every replica has to know and nobody else may: each is made by whoever needs it first.
create table secrets (
    name       text primary key,
    secret     blob    not null,
    created_at integer not null
);

-- Answers to changes that were sent with an Idempotency-Key, for whoever sends one again. `request` is
-- the SHA-256 of method, path and body.
create table idempotency_keys (
    actor   text    not null,
    key     text    not null,
    request blob    not null,
    status  integer not null,
    answer  text    not null,
    at      integer not null,
    primary key (actor, key)
);
create index idempotency_keys_at on idempotency_keys (at);
