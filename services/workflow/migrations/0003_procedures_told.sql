-- Which version of each procedure was told last: what stands is told again on its first day (docs/decisions/0010).
-- Until now every version was told when it was published, so the highest was the last.

create table procedures_told (
  code text primary key,
  version integer not null
);
insert into procedures_told select code, max(version) from procedures group by code;
