-- Each acknowledged batch says how many events it had and when they were recorded, so that a busy relay is counted
-- without reading its events. Batches from before count none.
alter table sent
  add column events integer not null default 0,
  add column recorded_from timestamptz not null default clock_timestamp(),
  add column recorded_to timestamptz not null default clock_timestamp();
