-- The delivery core: what was said (events), what was heard (heads, applied, held, parked), and how far it was sent.

create type topic as enum (
  'dossier.lifecycle.v1', 'internal.submissions.v1', 'internal.idnumber-requests.v1', 'internal.idnumber-results.v1',
  'internal.notice-requests.v1', 'internal.notices.v1', 'internal.procedures.v1'
);

-- The outbox, the HTTP feed, what verify reads and what refills a lost broker. Append-only: never updated.
-- Within a lane, id order is commit order (the lane's advisory lock is taken before ids are).
create table events (
  id bigint generated always as identity (cache 1),
  lane smallint not null,
  topic topic not null,
  dossier_id uuid,
  key text,                      -- for records that belong to no dossier (procedures, heartbeats)
  sequence integer not null,     -- per dossier and topic, from 1, no gaps
  ce_id uuid not null,
  type text not null,            -- the fact's class name
  trace_id uuid not null,
  data bytea not null,           -- JSON
  recorded_at timestamptz not null default clock_timestamp(),
  primary key (lane, id),
  check (num_nonnulls(dossier_id, key) = 1)
);
create unique index events_of_dossier on events (dossier_id, topic, sequence) where dossier_id is not null;

create table lanes (
  lane smallint primary key,
  sent_to bigint not null default 0,     -- every event of the lane up to this id was acknowledged by the broker
  epoch bigint not null default 0        -- a new owner counts it up; an old owner's update then misses
);
insert into lanes (lane) select generate_series(0, 11);

-- One row for each acknowledged batch: which ids, when. Emptied when the broker has lost what it had.
create table sent (
  lane smallint not null,
  to_id bigint not null,
  from_id bigint not null,
  sent_at timestamptz not null default clock_timestamp()
);
create index sent_by_lane on sent (lane, to_id);

-- What the broker acknowledged last, to notice that it has lost what it had.
create table broker_marks (
  topic text not null,
  partition smallint not null,
  last_offset bigint not null,
  primary key (topic, partition)
);
create table broker_cluster (
  side text primary key check (side in ('relay', 'consumer')),
  cluster_id text not null,
  seen_at timestamptz not null default clock_timestamp()
);

-- How far each dossier was heard on each topic. Fingerprints (the last 4 bytes of each applied ce_id) unmask a second
-- event under a sequence that was already applied.
create table heads (
  topic topic not null,
  dossier_id uuid not null,
  last integer not null default 0,
  fingerprints integer[] not null default '{}',
  primary key (topic, dossier_id)
) with (fillfactor = 80);

-- Came too early (`gap`), or stands behind a parked event of its dossier (`behind`).
create table held (
  topic topic not null,
  dossier_id uuid not null,
  sequence integer not null,
  reason text not null check (reason in ('gap', 'behind')),
  partition smallint not null,
  record_offset bigint not null,
  key bytea,
  header_names text[] not null,
  header_values bytea[] not null,
  value bytea,
  sent_at timestamptz not null,
  held_at timestamptz not null default clock_timestamp(),
  primary key (topic, dossier_id, sequence)
);

-- What can never succeed as it is. `blocks`: it stands in its dossier's sequence, so its successors are held.
create table parked (
  id bigint generated always as identity primary key,
  topic text not null,
  partition smallint not null,
  record_offset bigint not null,
  dossier_id uuid,
  sequence integer,
  ce_id uuid,
  blocks boolean not null,
  key bytea,
  header_names text[] not null,
  header_values bytea[] not null,
  value bytea,
  digest bytea not null,
  reason text not null,
  detail text not null,
  sent_at timestamptz not null,
  parked_at timestamptz not null default clock_timestamp(),
  state text not null default 'parked' check (state in ('parked', 'replayed', 'discarded')),
  settled_at timestamptz,
  settled_why text,
  unique (topic, digest)
);
create index parked_blocking on parked (dossier_id, topic) where state = 'parked' and blocks;

-- One row per effect, written with the effect and without a unique index, so that it can show a double.
create table applied (
  topic topic not null,
  dossier_id uuid not null,
  from_sequence integer not null,
  to_sequence integer not null,
  applied_at timestamptz not null default clock_timestamp()
);

create schema proof;

create view proof.events as
  select e.topic::text as topic, e.dossier_id, e.sequence, e.ce_id, e.type, e.recorded_at,
         case when e.id <= l.sent_to then
           (select s.sent_at from sent s where s.lane = e.lane and s.to_id >= e.id order by s.to_id limit 1)
         end as sent_at
    from events e join lanes l on l.lane = e.lane
   where e.dossier_id is not null;

create view proof.applied as
  select a.topic::text as topic, a.dossier_id, s.sequence::integer as sequence, count(*)::integer as times
    from applied a, generate_series(a.from_sequence, a.to_sequence) as s (sequence)
   group by a.topic, a.dossier_id, s.sequence;

create view proof.held as
  select topic::text as topic, dossier_id, sequence, reason, held_at from held;

-- A discarded record stays here with its reason: it had no effect, and a person decided so.
create view proof.parked as
  select topic, dossier_id, sequence, ce_id,
         case when state = 'discarded' then 'discarded: ' || reason else reason end as reason, parked_at
    from parked where state in ('parked', 'discarded');
