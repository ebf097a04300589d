"""The queries of the proof: one query per kind of finding, one row per finding."""

from __future__ import annotations

CONSUMERS = {
    "internal.submissions.v1": "workflow",
    "internal.idnumber-requests.v1": "idlookup",
    "internal.idnumber-results.v1": "workflow",
    "internal.notice-requests.v1": "notify",
    "internal.notices.v1": "workflow",
}
"""Topic -> the service that must apply every event of it."""
PUBLIC = "dossier.lifecycle.v1"

IN_FLIGHT_SECONDS = 15.0
"""So long after it was sent an event counts as in flight, since its consumer may be restarting; then as lost."""
MOVING_REQUESTS = ("waiting", "calling")
"""States of idlookup's requests that are due now or in flight. `pending` means that the registry has the request."""
MOVING_NOTICES = ("due", "sending")
"""States of notify's ledger rows that are due now or in flight."""

PREPARE = """
create table unapplied as
select e.service, e.topic, e.dossier, e.sequence, e.ce_id, e.type, c.service as listener,
  case
    when exists (select 1 from parked p where p.service = c.service and p.topic = e.topic and p.dossier = e.dossier
                 and p.sequence = e.sequence and p.ce_id = e.ce_id) then 'parked'
    when exists (select 1 from held h where h.service = c.service and h.topic = e.topic and h.dossier = e.dossier
                 and h.sequence = e.sequence and h.reason = 'behind')
     and exists (select 1 from parked p where p.service = c.service and p.topic = e.topic and p.dossier = e.dossier
                 and p.sequence < e.sequence and p.reason not like 'discarded%') then 'behind'
    when e.sent_age is null then 'unsent'
    when e.sent_age < ? then 'in flight'
    else 'lost'
  end as fate
from events e join consumers c on c.topic = e.topic
where not exists (select 1 from applied a where a.topic = e.topic and a.dossier = e.dossier
                  and a.sequence = e.sequence and a.service = c.service)
"""
PREPARE_SUBMISSIONS = """
create table lost_submissions as
select distinct s.dossier,
  case
    when u.fate is not null then 'DossierSubmitted was never applied'
    when exists (select 1 from events e where e.topic = 'internal.submissions.v1' and e.dossier = s.dossier
                 and e.type = 'DossierSubmitted') then 'DossierSubmitted was applied without effect'
    else 'there is no DossierSubmitted'
  end as why
from submissions s
left join unapplied u on u.dossier = s.dossier and u.topic = 'internal.submissions.v1' and u.type = 'DossierSubmitted'
where not exists (select 1 from recorded r where r.dossier = s.dossier) and coalesce(u.fate, 'lost') = 'lost'
"""


def _unpublished(service: str, settled: str) -> str:
    """Dossiers for which the service published fewer events of a type than it has rows with that outcome."""
    return f"""
        select s.dossier, s.type, s.settled, coalesce(o.times, 0) as told
        from (select dossier, type, count(*) as settled from ({settled})
              where type is not null group by dossier, type) s
        left join outcomes o on o.service = '{service}' and o.dossier = s.dossier and o.type = s.type
        where coalesce(o.times, 0) < s.settled"""


LOST = {
    "submission-not-recorded": "select dossier, why from lost_submissions",
    "event-never-applied": """
        select u.topic, u.dossier, u.sequence, u.ce_id, u.type, u.listener from unapplied u
        where u.fate = 'lost' and not (u.topic = 'internal.submissions.v1' and u.type = 'DossierSubmitted'
          and u.dossier in (select dossier from lost_submissions))""",
    "notice-without-row": """
        select e.dossier, e.sequence, e.ce_id from events e
        where e.topic = 'internal.notice-requests.v1' and e.type = 'NoticeWanted'
          and not exists (select 1 from notices n where n.notice = e.ce_id)
          and not exists (select 1 from unapplied u where u.topic = e.topic and u.dossier = e.dossier
                          and u.sequence = e.sequence)""",
    "request-without-row": """
        select e.dossier, e.sequence, e.ce_id, e.type from events e
        where e.topic = 'internal.idnumber-requests.v1' and e.type in ('IdNumberWanted', 'IdCheckWanted')
          and not exists (select 1 from id_requests r where r.request_key = e.ce_id)
          and not exists (select 1 from unapplied u where u.topic = e.topic and u.dossier = e.dossier
                          and u.sequence = e.sequence)""",
    "answer-never-told": _unpublished(
        "idlookup",
        """select dossier, case
             when state = 'found' then 'IdNumberFound'
             when state = 'duplicate' then 'IdNumberDuplicateSuspected'
             when state = 'refused' and kind = 'issue' then 'IdNumberRefused'
             when state in ('matched', 'mismatched', 'refused') then 'IdCheckAnswered' end as type
           from id_requests""",
    ),
    "notice-never-told": _unpublished(
        "notify",
        """select dossier, case
             when state in ('sent', 'listed') then 'NoticeSent'
             when state = 'failed' then 'NoticeFailed' end as type
           from notices""",
    ),
}
NEVER_ON_BROKER = {
    "sent-but-not-on-broker": f"""
        select e.topic, e.dossier, e.sequence, e.ce_id, e.type from events e
        where e.topic = '{PUBLIC}' and e.sent_age is not null
          and e.sequence > coalesce((select max(s.sequence) from sightings s
                                     where s.topic = e.topic and s.dossier = e.dossier), 0)"""
}
"""Only when the broker was read to its end: a sent public event after the last one there. A gap breaks the order."""

REPEATED = {
    "applied-more-than-once": """
        select service, topic, dossier, sequence, sum(times) as times from applied
        group by service, topic, dossier, sequence having sum(times) > 1""",
    "second-notice": """
        select notice, channel from (select notice, channel from notices group by notice, channel having count(*) > 1)
        union
        select notice, channel from sent_notices group by notice, channel having count(distinct ce_id) > 1""",
    "second-code": """
        select dossier, group_concat(distinct code) as codes from codes
        group by dossier having count(distinct code) > 1""",
    "code-of-two-dossiers": """
        select code, count(distinct dossier) as dossiers from codes group by code having count(distinct dossier) > 1""",
    "happened-twice": """
        select dossier, type, count(*) as times from events e
        where type in ('DossierRecorded', 'DossierReceived', 'IdNumberIssued') and topic = 'dossier.lifecycle.v1'
          and not (type = 'DossierReceived' and dossier in
                   (select dossier from codes group by dossier having count(distinct code) > 1))
        group by dossier, type having count(distinct sequence) > 1""",
}

ORDER = {
    "gap-in-events": """
        select service, topic, dossier, min(sequence) as first, max(sequence) as last,
               count(distinct sequence) as found
        from events group by service, topic, dossier
        having min(sequence) <> 1 or max(sequence) <> count(distinct sequence)""",
    "two-ids": """
        select topic, dossier, sequence, count(*) as ids from
          (select topic, dossier, sequence, ce_id from sightings union
           select topic, dossier, sequence, ce_id from events)
        group by topic, dossier, sequence having count(*) > 1""",
}

SET_ASIDE = {
    "parked": "select service, topic, dossier, sequence, ce_id, reason from parked where reason not like 'discarded%'",
    "discarded": "select service, topic, dossier, sequence, ce_id, reason from parked where reason like 'discarded%'",
    "behind": "select service, topic, dossier, sequence from held where reason = 'behind'",
    "strangers": "select topic, partition, position, reason from strangers",
}
