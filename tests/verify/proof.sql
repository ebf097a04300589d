-- The proof schema, as far as any service has it, on plain tables of the same columns.
create table submissions (dossier_id uuid, accepted_at timestamptz default now());
create table events (topic text, dossier_id uuid, sequence int, ce_id uuid, type text,
  recorded_at timestamptz default now(), sent_at timestamptz);
create table applied (topic text, dossier_id uuid, sequence int, times int);
create table held (topic text, dossier_id uuid, sequence int, reason text, held_at timestamptz default now());
create table parked (topic text, dossier_id uuid, sequence int, ce_id uuid, reason text,
  parked_at timestamptz default now());
create table notices (notice_id uuid, dossier_id uuid, kind text, channel text, state text);
create table id_requests (request_key uuid, kind text, state text, dossier_id uuid, due_at timestamptz);
create schema proof;
create view proof.submissions as select * from submissions;
create view proof.events as select * from events;
create view proof.applied as select * from applied;
create view proof.held as select * from held;
create view proof.parked as select * from parked;
create view proof.notices as select * from notices;
create view proof.id_requests as select * from id_requests;
