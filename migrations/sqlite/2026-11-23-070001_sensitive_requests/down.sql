drop index request_logs_sensitive_at;
