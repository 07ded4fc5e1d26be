-- Who pulls decisions with a key of the role `bouncer`: one row per key and address that it comes from.
-- list_version is how far its last complete pull had come, announced_at when that pull, or an earlier
-- one, told it everything.
create table bouncers (
    id           bigint      generated always as identity primary key,
    key_id       text        not null,
    address      inet        not null,
    kind         text,
    version      text,
    first_seen   timestamptz not null,
    last_pull    timestamptz not null,
    list_version bigint,
    pulled_at    timestamptz,
    announced_at timestamptz,
    applied      bigint,
    unique (key_id, address)
);
