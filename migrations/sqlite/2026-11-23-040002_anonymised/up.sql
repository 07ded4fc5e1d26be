-- How far the addresses in old records have been cut: all before `until` are. No row before the first.
create table anonymised (
    id    integer primary key check (id = 1),
    until integer not null
);
