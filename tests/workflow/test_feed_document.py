"""docs/feed.md is true: its reader runs against the real feed, its sample is an event, its errors are answered."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from deploy.local.ports import free_port
from shared.contract.events import EVENT_TYPES
from tests.fixtures.services import TOKENS
from tests.fixtures.waiting import wait_until
from tests.project.parts import ROOT
from tests.workflow.conftest import Desk
from tests.workflow.lifecycle_scenes import COPIES

PAGE = (ROOT / "docs/feed.md").read_text("utf-8")


def block(language: str) -> str:
    [text] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


@asynccontextmanager
async def served(desk: Desk) -> AsyncIterator[str]:
    """The address of workflow's application on a port of its own."""
    port = free_port()
    app = desk.http._transport.app  # type: ignore[attr-defined] # the application that the client calls
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_config=None))
    running = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await running


async def test_the_reader_of_the_document_reads_every_event_and_goes_on_where_it_stopped(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(desk) as address:
        monkeypatch.setenv("WORKFLOW", address)
        monkeypatch.setenv("TOKEN", TOKENS["system"])
        monkeypatch.setenv("SAVED", str(tmp_path / "address"))
        names: dict[str, Any] = {"__name__": "reader"}
        exec(compile(block("python"), "docs/feed.md", "exec"), names)
        first = await desk.submit(COPIES)
        reader = names["follow"]()
        events = await asyncio.to_thread(lambda: list(itertools.islice(reader, 2)))
        assert [event["type"] for event in events] == ["vn.hoso.DossierRecorded.v1", "vn.hoso.DossierReceived.v1"]
        assert {event["subject"] for event in events} == {str(first)}
        waiting = asyncio.create_task(asyncio.to_thread(next, reader))
        await wait_until((tmp_path / "address").exists)
        second = await desk.submit(COPIES)
        assert (await waiting)["subject"] == str(second)
        again = await asyncio.to_thread(lambda: list(itertools.islice(names["follow"](), 2)))
        assert {event["subject"] for event in again} == {str(second)}


async def test_the_errors_of_the_document_are_those_that_are_answered(desk: Desk) -> None:
    documented = {
        (int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \|", PAGE, re.MULTILINE)
    }
    asked = {"?after=x": "system", "": "", "?limit=0": "system", "?limit=1001": "system", "?wait=31": "system"}
    asked |= {"?types=DossierReceived": "system", "?agency=H44.XXX": "system"}
    answered = set()
    for query, role in asked.items():
        headers = {"Authorization": f"Bearer {TOKENS[role]}"} if role else {}
        answer = await desk.http.get(f"/v1/events{query}", headers=headers)
        answered.add((answer.status_code, answer.json()["code"]))
    assert answered == documented - {(503, "unavailable")}


async def test_the_sample_of_the_document_has_the_form_of_an_event(desk: Desk) -> None:
    await desk.submit(COPIES)
    [event] = (await desk.call("GET", "/v1/events?limit=1", "system")).json()
    sample = json.loads(block("json"))
    assert sample.keys() == event.keys()
    fact = EVENT_TYPES[sample["type"]].model_validate(sample["data"])
    assert json.loads(fact.to_json()) == sample["data"]
