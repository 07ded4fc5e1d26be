drop table anonymised;
