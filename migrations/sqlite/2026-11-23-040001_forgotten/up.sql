-- What is to be forgotten. `network` stands here until every node has confirmed. The digest, SHA-256 of
-- salt and network, stays for as long as a record from before may still come from a node that was away.
create table forgotten (
    id         integer primary key autoincrement,
    network    blob,
    prefix     integer not null,
    salt       blob    not null,
    digest     blob    not null,
    at         integer not null,
    version    integer not null,
    created_by text    not null,
    erased_at  integer,
    settled_at integer
);
create index forgotten_at on forgotten (at);

-- Which node holds nothing of it any more.
create table forgotten_nodes (
    forgotten_id integer not null,
    node         text    not null,
    confirmed_at integer not null,
    primary key (forgotten_id, node)
);
