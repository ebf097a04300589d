-- Every version of a procedure that was heard: one that is published early stands beside the one still in force.

alter table procedures drop constraint procedures_pkey;
alter table procedures add primary key (code, version);
