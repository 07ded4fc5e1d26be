-- What the hours of the log come to, counted by the scan: once an hour has ended, again whenever records
-- came late, and every few minutes while it goes on. `counted_to` is null when the whole hour was
-- counted; otherwise only records up to this id.
create table request_hours (
    hour       integer primary key,
    requests   integer not null,
    blocked    integer not null,
    throttled  integer not null,
    counted_to integer
);

-- The busiest of each hour: addresses, networks (/24, /48), paths, countries, ASNs, and every status. An
-- address is the hex of its 17 bytes, a network of those that it fixes.
create table request_tops (
    dimension text    not null,
    hour      integer not null,
    key       text    not null,
    requests  integer not null,
    blocked   integer not null,
    throttled integer not null,
    primary key (dimension, hour, key)
) without rowid;

-- Where there were more than are kept: none that was left away had more requests in that hour.
create table request_floors (
    dimension text    not null,
    hour      integer not null,
    floor     integer not null,
    primary key (dimension, hour)
) without rowid;
