-- The few requests for sensitive paths, which the scan looks for among all of an hour. ON ONLY: partitions
-- that are made from now on have it; those that are there would keep their writers waiting while it is
-- built, and are read as before.
create index request_logs_sensitive_at on only request_logs (at) where sensitive;
