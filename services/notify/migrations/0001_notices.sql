-- The ledger of notices: one row for each notice on each channel it is given, and what became of it.

create table dossiers (
  dossier_id uuid primary key,
  sequence integer not null default 0    -- of internal.notices.v1
) with (fillfactor = 80);

create table notices (
  notice_id uuid not null,               -- the id of the NoticeWanted event
  channel text not null check (channel in ('sms', 'zalo', 'email', 'call_list')),
  dossier_id uuid not null,
  kind text not null,
  cause text not null,
  dossier_code text,
  national_status smallint not null,
  result_due_at timestamptz,             -- office time
  receiving_agency text not null,
  sealed_contact text,                   -- gone as soon as nobody needs it any more
  trace_id uuid not null,
  wanted_at timestamptz not null,        -- when workflow recorded the NoticeWanted, wall time
  instead_of text,                       -- the channel that failed before this one
  state text not null check (state in ('due', 'sending', 'sent', 'failed', 'listed')),
  try_at timestamptz not null,           -- due: not before this; sending: the lease's end; wall time
  tries smallint not null default 0,     -- also the fence: only the latest try may save its outcome
  taken_at timestamptz,                  -- first taken up
  handing_over_at timestamptz,           -- e-mail: the message itself is on the wire, its outcome not known yet
  reason text,
  settled_at timestamptz,
  done_at timestamptz,                   -- call list: the person was reached
  done_by text,
  primary key (notice_id, channel),
  check (sealed_contact is not null or state in ('sent', 'failed') or done_at is not null)
);
create index notices_of_dossier on notices (dossier_id);
create index notices_to_send on notices (channel, try_at) where state in ('due', 'sending');
create index notices_to_call on notices (receiving_agency, notice_id, channel) where state = 'listed' and done_at is null;

-- Who read whose contact, when and what for.
create table contact_readings (
  read_at timestamptz not null default clock_timestamp(),
  dossier_id uuid not null,
  role text not null,
  officer text not null,
  purpose text not null
);
create index contact_readings_of_dossier on contact_readings (dossier_id);

create view proof.notices as select notice_id, dossier_id, kind, channel, state from notices;
