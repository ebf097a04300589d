-- Who completed a task: `X-Officer`, or the role where nobody was named. Null where a machine or an end closed it.
alter table tasks add column completed_by text;
