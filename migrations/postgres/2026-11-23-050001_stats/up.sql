-- What the hours of the log come to, counted by the scan: once an hour has ended, again whenever records
-- came late, and every few minutes while it goes on. `counted_to` is null when the whole hour was
-- counted; otherwise only records that came before this instant (microseconds since the Unix epoch).
create table request_hours (
    hour       timestamptz primary key,
    requests   bigint      not null,
    blocked    bigint      not null,
    throttled  bigint      not null,
    counted_to bigint
);

-- The busiest of each hour: addresses, networks (/24, /48), paths, countries, ASNs, and every status.
create table request_tops (
    dimension text        not null,
    hour      timestamptz not null,
    key       text        not null,
    requests  bigint      not null,
    blocked   bigint      not null,
    throttled bigint      not null,
    primary key (dimension, hour, key)
);

-- Where there were more than are kept: none that was left away had more requests in that hour.
create table request_floors (
    dimension text        not null,
    hour      timestamptz not null,
    floor     bigint      not null,
    primary key (dimension, hour)
);
