drop type request_log_row;
