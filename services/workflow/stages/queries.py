"""The SQL of the stages' figures. `{agency}` is a condition on the agency, or one that planning can drop.

`$1` is the agency; where there are `$2` and `$3` they are `tables.TASK_STAGES` and `IS_MACHINE`.

A machine's stage can have tasks for an officer: a doubtful answer, a late number. They are not counted in the stage.
Otherwise the officer's hours would be compared with the registry's target in seconds, and a dossier would be counted
twice. Without them a dossier has one task in a stage, so that counting tasks counts dossiers.
"""

from __future__ import annotations

from services.workflow.tables import TASK_STAGES
from shared.contract.stages import MACHINE

IS_MACHINE = [stage in MACHINE for stage in TASK_STAGES]

# It reads every open task, every two seconds: so it sorts nothing and reads nothing but its index.
OPEN_TASKS = """
  select stage, in_stage, waiting, started, overdue, due_soon,
         (select count(distinct one) from unnest(holding) as one) as holders
    from (
      select stage, count(*) filter (where own) as in_stage,
             count(*) filter (where own and state <> 'started') as waiting,
             count(*) filter (where state = 'started') as started,
             array_agg(holder) filter (where state = 'started') as holding,
             count(*) filter (where not twice and due_at < $4) as overdue,
             count(*) filter (where not twice and due_at >= $4 and due_at < $5) as due_soon
        from (
          select t.stage, t.state, t.holder, t.due_at, own, not own and exists (
                   select from tasks o where o.dossier_id = t.dossier_id and o.stage = t.stage and o.role is null
                      and o.state <> 'closed') as twice
            from tasks t join unnest($2::text[], $3::boolean[]) as s (stage, machine) using (stage)
           cross join lateral (select t.role is null or not s.machine as own) as o
           where state <> 'closed' and {agency}) t
       group by stage) g
"""
OLDEST = """
  select o.stage, o.entered_at, o.entered_office_at,
         case when not exists (select 1 from blanks b where 'blanks:' || b.kind = o.waiting_for
                                  and b.next_serial <= b.serial_to - b.spoiled) then o.waiting_for end as short_of
    from unnest($2::text[], $3::boolean[]) as s (stage, machine) cross join lateral (
      select stage, entered_at, entered_office_at, waiting_for from tasks
       where stage = s.stage and state <> 'closed' and (role is null or not s.machine) and {agency}
       order by entered_at limit 1) o
"""
# A busy stage is counted back to its 2,000th departure, so that the cost is bounded.
MOVED = """
  select s.stage, o.entered + c.entered as arrived, c.departed, w.since
    from unnest($2::text[], $3::boolean[]) as s (stage, machine)
   cross join lateral (select coalesce((select left_at from tasks where stage = s.stage and state = 'closed'
      and left_at > $4 order by left_at desc offset 2000 limit 1), $4) as since) w
   cross join lateral (select count(*) as entered from (select 1 from tasks where stage = s.stage
      and state <> 'closed' and entered_at > w.since and (role is null or not s.machine) and {agency} limit 20000) n) o
   cross join lateral (select count(*) as departed, count(*) filter (where entered_at > w.since) as entered from tasks
      where stage = s.stage and state = 'closed' and left_at > w.since and (role is null or not s.machine)
        and {agency}) c
"""
WAITS = """
  select s.stage, percentile_cont(array[0.5, 0.95]) within group (order by t.wait_s) as waits,
         percentile_cont(array[0.5, 0.95]) within group (order by t.service_s) as services
    from unnest($2::text[], $3::boolean[]) as s (stage, machine) cross join lateral (
      select wait_s, service_s from (
        select wait_s, service_s, role, agency from tasks where stage = s.stage and state = 'closed'
         order by left_at desc limit 5000) lately
       where (role is null or not s.machine) and {agency} limit 1000) t
   group by s.stage
"""
RECORDED_ONLY = """
  select procedure_code, procedure_group, count(*) as waiting, min(recorded_at) as oldest_since
    from dossiers where state = 'recorded' and ($1::text is null or receiving_agency = $1)
   group by procedure_code, procedure_group order by oldest_since
"""
# Counted back to each lane's 500th batch at most. Events are read only of a batch that was recorded across `since`.
SENT = """
  with lately as (
    select s.* from lanes l cross join lateral (
      select *, row_number() over (order by to_id desc) as nth from sent where lane = l.lane
       order by to_id desc limit 500) s
  ), w as (select greatest($1::timestamptz, max(sent_at) filter (where nth = 500)) as since from lately)
  select since, coalesce(sum(s.events), 0)::int as departed,
         coalesce(sum(case when s.recorded_from > since then s.events when s.recorded_to > since then (
           select count(*) from events e where e.lane = s.lane and e.id between s.from_id and s.to_id
              and e.recorded_at > since) end), 0)::int as arrived
    from w left join lately s on s.sent_at > w.since group by since
"""
MAX_COUNTED = 2_000
"""How many unsent events of a lane are counted at most."""
UNSENT = """
  select count(*) filter (where recorded_at > $1) from lanes l cross join lateral (
    select recorded_at from events e where e.lane = l.lane and e.id > l.sent_to order by e.id limit $2) u
"""
