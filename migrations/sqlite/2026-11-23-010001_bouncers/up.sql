-- Who pulls decisions with a key of the role `bouncer`: one row per key and address that it comes from.
-- list_version is how far its last complete pull had come, announced_at when that pull, or an earlier
-- one, told it everything.
create table bouncers (
    id           integer primary key autoincrement,
    key_id       text    not null,
    address      blob    not null,
    kind         text,
    version      text,
    first_seen   integer not null,
    last_pull    integer not null,
    list_version integer,
    pulled_at    integer,
    announced_at integer,
    applied      integer,
    unique (key_id, address)
);
