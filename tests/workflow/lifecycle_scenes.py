"""A centre with one dossier, for scenarios: commands and facts call the same functions as in the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from services.workflow import lifecycle
from services.workflow.clock.calendar import WorkingCalendar
from services.workflow.lifecycle import Decision, DecisionContext, Dossier, EmittedEvent, Task
from services.workflow.procedures import Procedure, shipped
from shared.clock import VIETNAM
from shared.contract import events
from shared.contract.events import Fact, LifecycleFact, NoticeWanted
from shared.refusals import Refused

CALENDAR = WorkingCalendar()
AGENCY = "H44.XXX"
BIRTH, LAND, COPIES, BUSINESS = "1.001193", "1.013978", "2.000815", "1.001612"
WALL0 = datetime(2025, 8, 27, 2, 0, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=VIETNAM)


NINE = at("2025-08-27T09:00")
"""A Wednesday morning."""


def rules(code: str, **changed: Any) -> Procedure:
    """A shipped procedure with some rules changed."""
    document = shipped()[code].model_dump(mode="json")
    return Procedure.model_validate({**document, "intake_mode": "open", "record_only_reason": None, **changed})


def steps(*stages: str) -> list[dict[str, Any]]:
    """Steps of these stages, each with its usual role."""
    role = {"approval": "signatory", "issuing": "records_clerk", "return": "counter"}
    return [{"stage": stage, "role": role.get(stage, "specialist"), "working_hours": 4} for stage in stages]


def submission(procedure: Procedure, **changed: Any) -> events.DossierSubmitted:
    """The fact of a submission. Unless changed, an officer has filed it at the counter."""
    fields: dict[str, Any] = {
        "procedure_code": procedure.code,
        "procedure_version": procedure.version,
        "receiving_agency": AGENCY,
        "channel": "direct",
        "caller_role": "counter",
        "has_personal_id": True,
        "sealed_contact": "contact",
        "sealed_person": "person",
        "sealed_subject": "subject",
    }
    return events.DossierSubmitted.model_validate({**fields, **changed})


@dataclass
class Centre:
    """One dossier and every event about it. `now` is the office time; a scene changes it."""

    procedure: Procedure
    now: datetime = NINE
    blanks: int = 0
    round_trip: bool = False
    """Store and load the state as JSON before every decision, as the service does."""
    dossier: Dossier = field(init=False)
    emitted: list[EmittedEvent] = field(default_factory=list)
    closed: list[Task] = field(default_factory=list)
    timers: dict[str, datetime] = field(default_factory=dict)
    codes: Counter[date] = field(default_factory=Counter)
    in_force: Procedure | None = None
    ids: int = 0
    """How many ids the rules took."""

    def context(self) -> DecisionContext:
        return DecisionContext(
            wall=WALL0 + (self.now - NINE),
            office=self.now,
            calendar=CALENDAR,
            in_force=lambda *_: self.in_force or self.procedure,
            new_id=self._id,
            code_for=self._code,
            take_blank=self._blank,
        )

    def _id(self) -> UUID:
        self.ids += 1
        return UUID(int=self.ids)

    def _code(self, agency: str, office: datetime) -> str:
        self.codes[office.date()] += 1
        return f"{agency}-{office:%y%m%d}-{self.codes[office.date()]:04d}"

    def _blank(self, _: str) -> int | None:
        if not self.blanks:
            return None
        self.blanks -= 1
        return 1000 + self.blanks

    def submit(self, *, open_for_reception: bool = True, **changed: Any) -> list[str]:
        fact = submission(self.procedure, **{"office_at": self.now, **changed})
        self.dossier = lifecycle.begin(fact, UUID(int=7), UUID(int=8), self.procedure.group)
        return self._take(
            lifecycle.submitted(
                self.dossier, self.procedure, fact, self.context(), open_for_reception=open_for_reception
            )
        )

    def receive(self, fact: Fact) -> list[str]:
        """Decide about a fact of intake or idlookup. Returns the names of the emitted facts, as every command does."""
        return self._decide(lambda dossier: lifecycle.decide(dossier, self.rules, fact, self.context()))

    def supplement(self) -> list[str]:
        return self.receive(events.SupplementSubmitted(office_at=self.now, components=()))

    def withdraw(self) -> list[str]:
        return self.receive(events.WithdrawalRequested(office_at=self.now, sealed_reason="reason"))

    def number_found(self, key: UUID | None = None, *warnings: str) -> list[str]:
        key = key or self.number_key
        return self.receive(events.IdNumberFound(request_key=key, sealed_number="sealed", warnings=warnings))

    def misshapen_number_found(self) -> list[str]:
        return self.number_found(None, "length")

    def number_delayed(self) -> list[str]:
        return self.receive(events.IdNumberStillPending(request_key=self.number_key, since=self.now))

    def duplicate_suspected(self) -> list[str]:
        return self.receive(events.IdNumberDuplicateSuspected(request_key=self.number_key))

    def number_refused(self) -> list[str]:
        return self.receive(events.IdNumberRefused(request_key=self.number_key, reason="rejected"))

    def identity_checked(self, answer: str) -> list[str]:
        return self.receive(events.IdCheckAnswered(request_key=self.dossier.check_key or UUID(int=0), answer=answer))

    def hold_time_comes(self) -> list[str]:
        """Let the time pass to the end of the number's hold, and fire its timer."""
        self.now = max(self.now, self.timers.pop("number_hold"))
        return self._decide(lambda dossier: lifecycle.hold_over(dossier, self.rules, self.context()))

    def open_procedure(self) -> list[str]:
        return self._decide(lambda dossier: lifecycle.opened(dossier, self.rules, self.context()))

    def complete(self, stage: str, outcome: str | None = None, **changed: Any) -> list[str]:
        """Complete the officer's task in `stage`, with the forward outcome by default. Raises Refused."""
        task = self.task(stage)
        code = outcome or next(o.code for o in lifecycle.OUTCOMES[task.kind] if o.forward)
        completion = lifecycle.Completion(
            **{"outcome": code, "version": task.version, "holder": task.role, "fields": {}, **changed}
        )

        def act(dossier: Dossier) -> Decision:
            current = dossier.find_task(task.task_id)
            assert current is not None
            return lifecycle.complete(dossier, self.rules, current, self.context(), completion)

        return self._decide(act)

    def forward(self, *stages: str) -> None:
        for stage in stages:
            self.complete(stage)

    def task(self, stage: str) -> Task:
        task = self.dossier.find_open_task(stage, machine=False)
        assert task is not None, f"no officer's task in {stage}, but {self.open_stages}"
        return task

    @property
    def rules(self) -> Procedure:
        pinned = self.in_force is not None and self.dossier.procedure_version == self.in_force.version
        return self.in_force if pinned and self.in_force is not None else self.procedure

    @property
    def number_key(self) -> UUID:
        return self.dossier.number_key or UUID(int=0)

    @property
    def human_tasks(self) -> list[Task]:
        return [task for task in self.dossier.tasks if task.role is not None]

    @property
    def open_stages(self) -> list[tuple[str, str | None]]:
        return [(task.stage, task.role) for task in self.dossier.tasks]

    @property
    def public(self) -> list[str]:
        return [type(event.fact).__name__ for event in self.emitted if isinstance(event.fact, LifecycleFact)]

    @property
    def statuses(self) -> list[int]:
        facts = [event.fact for event in self.emitted if isinstance(event.fact, LifecycleFact)]
        return [fact.national_status for fact in facts if fact.national_status is not None]

    @property
    def notices(self) -> list[str]:
        return [event.fact.kind for event in self.emitted if isinstance(event.fact, NoticeWanted)]

    def last(self, kind: type[Fact]) -> Any:
        return next(event.fact for event in reversed(self.emitted) if isinstance(event.fact, kind))

    def pass_days(self, days: int) -> None:
        self.now += timedelta(days=days)

    @property
    def resources(self) -> tuple[int, int, Counter[date]]:
        """What the rules may use up: ids taken, blanks left, codes given."""
        return self.ids, self.blanks, self.codes.copy()

    def _decide(self, act: Callable[[Dossier], Decision]) -> list[str]:
        if self.round_trip:
            self.dossier = Dossier.from_json(self.dossier.to_json())
        before, resources = self.dossier.to_json(), self.resources
        try:
            return self._take(act(self.dossier))
        except Refused:
            assert orjson.loads(self.dossier.to_json()) == orjson.loads(before), "a refused command changed the dossier"
            assert self.resources == resources, "a refused command used something up"
            raise

    def _take(self, decision: Decision) -> list[str]:
        self.emitted += decision.events
        self.closed += [task for task in decision.tasks.values() if task.state == "closed"]
        for kind, when in decision.timers.items():
            self.timers.pop(kind, None)
            if when is not None:
                self.timers[kind] = when
        return [type(event.fact).__name__ for event in decision.events]
