-- Submissions, later requests, contents of components, and intake's copy of the procedures.

create table submissions (
  dossier_id uuid primary key,
  caller text not null,
  idempotency_key text not null,
  body_digest bytea not null,
  procedure_code text not null,
  procedure_version integer not null,
  receiving_agency text not null,
  channel text not null,
  submitted_at timestamptz not null,     -- office time
  accepted_at timestamptz not null default clock_timestamp(),
  sequence integer not null default 1,   -- of internal.submissions.v1
  trace_id uuid not null,
  components jsonb not null,
  unique (caller, idempotency_key)
);

-- Supplements and withdrawals: accepted here, decided by workflow.
create table requests (
  caller text not null,
  idempotency_key text not null,
  dossier_id uuid not null references submissions,
  kind text not null check (kind in ('supplement', 'withdrawal')),
  body_digest bytea not null,
  accepted_at timestamptz not null default clock_timestamp(),
  primary key (caller, idempotency_key)
);

create table contents (
  dossier_id uuid not null references submissions,
  component_code text not null,
  upload_id uuid not null,
  sha256 bytea not null,
  size bigint not null,
  content_type text not null,
  stored_at timestamptz not null default clock_timestamp(),
  primary key (dossier_id, component_code)
);
-- Written while the content streams in, each in a transaction of its own, so that a slow client locks nothing.
create table content_pieces (
  upload_id uuid not null,
  number integer not null,
  piece bytea not null,
  stored_at timestamptz not null default clock_timestamp(),
  primary key (upload_id, number)
);

create table procedures (
  code text primary key,
  version integer not null,
  procedure jsonb not null,
  seen_at timestamptz not null default clock_timestamp()
);

create view proof.submissions as select dossier_id, accepted_at from submissions;
