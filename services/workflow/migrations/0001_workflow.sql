-- Dossiers, the tasks they stand in, the procedures and calendar they follow, and the stock they use up.

create table procedures (
  code text not null,
  version integer not null,
  procedure jsonb not null,          -- without intake mode
  published_at timestamptz not null default clock_timestamp(),
  primary key (code, version)
);
create table intake_modes (
  code text primary key,
  intake_mode text not null check (intake_mode in ('open', 'record_only', 'opening')),
  reason text,
  changed_at timestamptz not null default clock_timestamp()
);

create table calendar (
  the_one boolean primary key default true check (the_one),
  rules jsonb not null,
  changed_at timestamptz not null default clock_timestamp()
);

-- One row a dossier. `body` is the whole state as the rules know it; the columns beside it are for looking up.
create table dossiers (
  dossier_id uuid primary key,
  dossier_code text,
  procedure_code text not null,
  procedure_version integer not null,
  procedure_group text not null,
  receiving_agency text not null,
  state text not null,
  national_status smallint not null,
  due_at timestamptz,
  lifecycle_sequence integer not null,
  recorded_at timestamptz not null,      -- office time
  trace_id uuid not null,
  body bytea not null                    -- JSON
) with (fillfactor = 70);
create unique index dossier_codes on dossiers (dossier_code) where dossier_code is not null;
create index dossiers_record_only on dossiers (procedure_code, recorded_at, dossier_id) where state = 'recorded';

-- Each stay of a dossier in a stage. `role` is null where a machine is awaited (the registry).
create table tasks (
  task_id uuid primary key,
  dossier_id uuid not null,
  dossier_code text,
  procedure_code text not null,
  procedure_group text not null,
  agency text not null,
  stage text not null,
  role text,
  version integer not null,
  state text not null check (state in ('open', 'started', 'closed')),
  holder text,
  waiting_for text,
  outcomes bytea not null,               -- JSON
  due_at timestamptz,
  entered_at timestamptz not null,       -- wall time
  entered_office_at timestamptz not null,
  started_at timestamptz,
  started_office_at timestamptz,
  left_at timestamptz,
  left_office_at timestamptz,
  outcome text,
  wait_s double precision,               -- working seconds of office time for human stages, wall seconds for machines
  service_s double precision
) with (fillfactor = 80);
create index tasks_of_role on tasks (role, due_at, task_id) where state <> 'closed' and role is not null;
create index tasks_standing on tasks (stage, entered_at) where state <> 'closed';
create index tasks_left on tasks (stage, left_at) where state = 'closed';
create index tasks_of_dossier on tasks (dossier_id);

-- What is to be looked at again at an office time. Kept until the dossier's own state says otherwise.
create table timers (
  dossier_id uuid not null,
  kind text not null,
  due_at timestamptz not null,           -- office time
  primary key (dossier_id, kind)
);
create index timers_due on timers (due_at);

-- The running number of dossier codes, per receiving agency and day.
create table code_counters (
  agency text not null,
  day date not null,
  last integer not null,
  primary key (agency, day)
);

-- Numbered blanks (phôi): a box from the department is a range of serial numbers.
create table blanks (
  kind text not null,
  serial_from bigint not null,
  serial_to bigint not null,
  next_serial bigint not null,
  spoiled bigint not null default 0,
  received_at timestamptz not null default clock_timestamp(),
  primary key (kind, serial_from),
  check (serial_from <= serial_to and next_serial between serial_from and serial_to + 1)
);

-- Notices that were asked for and whose outcome has not come back yet: the stage `notify` as workflow sees it.
create table notices_awaited (
  notice_id uuid primary key,
  dossier_id uuid not null,
  wanted_at timestamptz not null default clock_timestamp()
);
create index notices_awaited_since on notices_awaited (wanted_at);
