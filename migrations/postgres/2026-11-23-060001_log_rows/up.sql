-- What a batch of the log consists of on its way into request_logs: all of its columns but the id. A type
-- of its own, so that a version that adds a column can bring its type and leave this one to the version
-- before, which still runs beside it.
create type request_log_row as (
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
