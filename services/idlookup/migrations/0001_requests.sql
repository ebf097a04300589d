-- What the registry is asked, and how far each request is.

create table dossiers (
  dossier_id uuid primary key,
  sequence integer not null default 0      -- of internal.idnumber-results.v1
);

create table requests (
  request_key uuid primary key,            -- the id of the event that wanted it: never made of the data
  dossier_id uuid not null,
  kind text not null check (kind in ('issue', 'verify')),
  sealed text not null,                    -- the subject, or the person, as it came
  trace_id uuid not null,
  state text not null default 'waiting' check (state in ('waiting', 'calling', 'pending', 'found', 'matched',
    'mismatched', 'duplicate', 'refused', 'stopped')),
  asked boolean not null default false,    -- a call may have reached the registry: ask by key before asking anew
  confirmed boolean not null default false,-- a person has said: not the same as the suspected one
  dropped boolean not null default false,  -- nobody waits for it any more: never sent anew, still asked after
  told_pending boolean not null default false,
  tries integer not null default 0,
  lost integer not null default 0,         -- answers lost in a row
  wanted_at timestamptz not null,
  next_try_at timestamptz not null default clock_timestamp(),
  settled_at timestamptz,
  sealed_number text,
  reason text,
  resolved_by text,
  resolved_note text
) with (fillfactor = 80);
create index requests_due on requests (kind, next_try_at) where state in ('waiting', 'calling', 'pending');
create index requests_by_state on requests (state, wanted_at, request_key);

create view proof.id_requests as select request_key, kind, state from requests;
