alter sequence request_log_ids increment by 1 cache 100;
drop type request_log_row;
