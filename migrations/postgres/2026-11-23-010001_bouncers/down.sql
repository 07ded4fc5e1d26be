drop table bouncers;
