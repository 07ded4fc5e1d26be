drop table forgotten_nodes;
drop table forgotten;
