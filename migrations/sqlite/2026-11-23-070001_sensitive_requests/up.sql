-- The few requests for sensitive paths, which the scan looks for among all of an hour.
create index request_logs_sensitive_at on request_logs (at) where sensitive;
