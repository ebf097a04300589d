-- What the registry is asked, and how far each request is.

create table dossiers (
  dossier_id uuid primary key,
  sequence integer not null default 0      -- of internal.idnumber-results.v1
) with (fillfactor = 80);

create table requests (
  request_key uuid primary key,            -- the id of the event that wanted it: never made of the data
  dossier_id uuid not null,
  kind text not null check (kind in ('issue', 'verify')),
  sealed text not null,                    -- the subject, or the person, as it came
  trace_id uuid not null,
  state text not null default 'waiting' check (state in ('waiting', 'calling', 'pending', 'found', 'matched',
    'mismatched', 'duplicate', 'refused', 'stopped')),
  asked boolean not null default false,    -- a call may have reached the registry: ask by key before asking anew
  to_send boolean not null default true,   -- the registry has not acknowledged it yet, or is to be sent it again
  confirmed boolean not null default false,-- a person has said: not the same as the suspected one
  dropped boolean not null default false,  -- nobody waits for it any more: never sent anew, still asked after
  told_pending boolean not null default false,
  tries integer not null default 0,        -- times taken up; also the fence: only the latest may save its outcome
  lost integer not null default 0,         -- answers lost in a row
  wanted_at timestamptz not null,          -- when workflow recorded the want, wall time
  asked_at timestamptz,                    -- first taken up
  next_try_at timestamptz not null,        -- calling: the lease's end; wall time
  settled_at timestamptz,
  sealed_number text,
  reason text,
  resolved_by text,
  resolved_note text
) with (fillfactor = 70);
create index requests_due on requests (kind, to_send, next_try_at) where state in ('waiting', 'calling', 'pending');
create index requests_late on requests (wanted_at)
  where kind = 'issue' and not told_pending and not dropped and state in ('waiting', 'calling', 'pending');
create index requests_by_state on requests (state, wanted_at, request_key);
create index requests_of_dossier on requests (dossier_id);

create view proof.id_requests as select request_key, kind, state from requests;
