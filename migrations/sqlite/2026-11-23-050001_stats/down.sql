drop table request_floors;
drop table request_tops;
drop table request_hours;
