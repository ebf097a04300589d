-- The officers' work lists by role and stage, soonest due first: each list is read from the front of one index.
drop index tasks_of_role;
create index tasks_of_role on tasks (role, stage, coalesce(due_at, 'infinity'), task_id)
  where state <> 'closed' and role is not null;
-- With the tasks that a machine is awaited for, for the board of one agency.
create index tasks_of_agency on tasks (agency, role, stage, coalesce(due_at, 'infinity'), task_id)
  where state <> 'closed';
