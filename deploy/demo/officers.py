"""The officers of the centre: counters, specialists, a records clerk, and a signatory who signs twice a day."""

from __future__ import annotations

import asyncio
from datetime import datetime, time, timedelta
from typing import Any
from uuid import UUID, uuid5

from deploy.demo.centre import Centre
from deploy.demo.people import body
from deploy.demo.week import Arrival
from shared.clock import VIETNAM

NAMESPACE = UUID("6f0f8f2e-0000-4000-8000-486f736f3132")
STAFF = {"counter": 4, "specialist": 3, "records_clerk": 1}
MINUTES = {
    "same_visit": 5.0,
    "reception": 6.0,
    "return": 3.0,
    "financial_obligation": 4.0,
    "appraisal": 10.0,
    "consultation": 12.0,
    "issuing": 2.0,
    "identity_check": 8.0,
    "id_number": 8.0,
}
"""Office minutes of work per stage. They are constant, so that equal days have equal work."""
DESK, FOLDER = 15, 50
"""How many tasks an officer lists to choose one, and how many the signatory lists at a time."""
ROUNDS = (time(10, 30), time(16, 0))
"""Signing rounds. A birth whose number is late only after the second round is decided the next morning."""


async def file_arrivals(
    centre: Centre, week: list[Arrival], examples: dict[str, dict[str, Any]], filed: list[str]
) -> None:
    """File each arrival at its time with its own request. The ids of accepted dossiers are appended to `filed`."""

    async def file(arrival: Arrival) -> None:
        await centre.until(arrival.at)
        role = "counter" if arrival.channel in ("assisted", "direct", "post") else "system"
        key = str(uuid5(NAMESPACE, f"{arrival.seed}/{arrival.commune}"))
        papers = body(examples[arrival.procedure_code], arrival, centre.agency(arrival.commune))
        status, answer = await centre.call("intake", "POST", "/v1/dossiers", role, papers, **{"Idempotency-Key": key})
        if status in (200, 201):
            filed.append(answer["dossier_id"])

    await asyncio.gather(*(file(arrival) for arrival in week))


async def officer(centre: Centre, role: str, name: str, commune: int) -> None:
    """Take the task that is due first, work on it, complete it; wait when there is none or the office is closed.

    A call takes minutes of office time at this speed. They count as part of the work: otherwise the centre would work
    more slowly on a busy machine.
    """
    while True:
        await centre.until_open()
        began = centre.clock.now()
        task = await _take(centre, role, name, commune)
        if task is None:
            await centre.some_news(0.5)
            continue
        await centre.work(MINUTES["same_visit" if _is_same_visit(task) else task["stage"]] * 60, began)
        await _finish(centre, role, name, task, _choice(task))
        centre.at_work.discard(task["task_id"])


async def signatory(centre: Centre, commune: int) -> None:
    """Sign all tasks twice a day, and decide on births whose identification number is late."""
    turn = 0
    while True:
        await centre.until(_next_round(centre.clock.now()))
        while tasks := await _list(centre, "signatory", commune, FOLDER):
            done = 0
            for task in tasks:
                await centre.work(30)
                choice = _choice(task)
                if choice == "return_without_number":
                    # In turn: one family takes the certificate without the number, the next family waits for it.
                    turn += 1
                    choice = "wait" if turn % 2 else choice
                done += await _finish(centre, "signatory", f"ky-{commune}", task, choice)
            if not done:
                break


def _next_round(now: datetime) -> datetime:
    for day in range(7):
        date = now.date() + timedelta(days=day)
        for hour in ROUNDS:
            begins_at = datetime.combine(date, hour, VIETNAM)
            if begins_at > now and date.weekday() < 5:
                return begins_at
    raise AssertionError("a week has working days")


async def _list(centre: Centre, role: str, commune: int, limit: int) -> list[dict[str, Any]]:
    path = f"/v1/tasks?role={role}&agency={centre.agency(commune)}&limit={limit}"
    status, answer = await centre.call("workflow", "GET", path, role)
    return [task for task in answer["items"] if not task["waiting_for"]] if status == 200 else []


async def _take(centre: Centre, role: str, name: str, commune: int) -> dict[str, Any] | None:
    """Start the first task that nobody holds. If it has changed since it was listed, try the next one."""
    for task in await _list(centre, role, commune, DESK):
        if task["holder"] not in (None, name) or task["task_id"] in centre.at_work:
            continue
        centre.at_work.add(task["task_id"])
        path = f"/v1/tasks/{task['task_id']}/start"
        status, answer = await centre.call(
            "workflow", "POST", path, role, {"version": task["version"]}, **{"X-Officer": name}
        )
        if status == 200:
            return {**task, "version": answer["version"]}
        centre.at_work.discard(task["task_id"])
    return None


async def _finish(centre: Centre, role: str, name: str, task: dict[str, Any], outcome: str) -> bool:
    path = f"/v1/tasks/{task['task_id']}/complete"
    completion = {"outcome": outcome, "version": task["version"]}
    status, _ = await centre.call("workflow", "POST", path, role, completion, **{"X-Officer": name})
    return status == 200


def _choice(task: dict[str, Any]) -> str:
    return str(next(outcome["code"] for outcome in task["outcomes"] if outcome["forward"]))


def _is_same_visit(task: dict[str, Any]) -> bool:
    return task["stage"] == "return" and "signed_by" in task["outcomes"][0]["fields"]
