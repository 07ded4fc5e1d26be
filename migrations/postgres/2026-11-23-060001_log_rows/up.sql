-- What a batch of the log consists of on its way into request_logs. A type of its own, so that a version
-- that adds a column can bring its type and leave this one to the version before, which still runs
-- beside it.
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
-- As many as request_logs::write gives to one block.
alter sequence request_log_ids increment by 10000 cache 1;
