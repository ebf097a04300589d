-- An outside proof counts what was told of each dossier's requests, and sees whether one is overdue.

create or replace view proof.id_requests as
  select request_key, kind, state, dossier_id,
         case when state in ('waiting', 'pending') then next_try_at end as due_at
    from requests;
