-- What a batch of the log consisted of on its way into request_logs before it came by COPY. To be dropped in a
-- later version: one that still uses it may run beside this one.
create type request_log_row as (
    id          bigint,
    at          timestamptz,
    address     inet,
    method      text,
    path        text,
    status      smallint,
    verdict     text,
    sensitive   boolean,
    identity    text,
    country     text,
    city        text,
    asn         bigint,
    user_agent  text,
    reference   text,
    node        text,
    recorded_at timestamptz
);

-- A batch takes its ids as a block, by one call, and gives them to its rows itself: it is written in the
-- order of addresses, which is cheaper for the index, and ids are to rise with time all the same.
-- As many as one block has in request_logs/copying.rs.
alter sequence request_log_ids increment by 10000 cache 1;
