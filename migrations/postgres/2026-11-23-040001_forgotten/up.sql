-- What is to be forgotten. `network` stands here until every node has confirmed. The digest, SHA-256 of
-- salt and network, stays for as long as a record from before may still come from a node that was away.
create table forgotten (
    id         bigint generated always as identity primary key,
    network    cidr,
    prefix     smallint    not null,
    salt       bytea       not null,
    digest     bytea       not null,
    at         timestamptz not null,
    version    bigint      not null,
    created_by text        not null,
    erased_at  timestamptz,
    settled_at timestamptz
);
create index forgotten_at on forgotten (at);

-- Which node holds nothing of it any more.
create table forgotten_nodes (
    forgotten_id bigint      not null,
    node         text        not null,
    confirmed_at timestamptz not null,
    primary key (forgotten_id, node)
);
