-- Every version of a procedure is kept: one that is published early is stored beside the one in force.

alter table procedures drop constraint procedures_pkey;
alter table procedures add primary key (code, version);
