drop table audit_log, api_keys, imports, spool_positions, nodes, leases, scan_runs, suspicious_ips,
    list_changes, list_version, allowed_ips, blocked_ips, touched_hours, request_logs;
