"""The command hoso: its requests to the services, its output, and its errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.docs.due import worked_out
from deploy.local import cli, ports
from deploy.local.commands.stages import spell_seconds
from deploy.local.doctor import _broker, examine
from deploy.local.kafka_durability import Cluster, Topic, judge
from deploy.local.postgres import Postgres
from deploy.local.trouble import Trouble
from services.workflow.clock.calendar import WorkingCalendar
from services.workflow.clock.deadlines import explain
from services.workflow.procedures import shipped
from shared.contract.events import LIFECYCLE, STATE, SUBMISSIONS
from shared.http.access import unauthorized
from shared.http.problems import Problem

OPS = "a-token-for-operations"
VERDICT = {
    "stages": [
        {"stage": "id_number", "arrived": 9, "left": 3, "waiting": 6, "oldest_seconds": 183_600.0, "score": 25.5},
        {"stage": "return", "arrived": 3, "left": 3, "waiting": 0, "oldest_seconds": None, "score": 0.0},
    ],
    "bottleneck": {"stage": "id_number"},
    "sentence": {"vi": "Cấp số định danh: 6 hồ sơ.", "en": "Identification number: 6 dossiers."},
}
PARKED = {
    "id": 7,
    "topic": "internal.idnumber-requests.v1",
    "dossier_id": "0196b0e2-7b1e-7c11-8e4e-1f6d7d7e8a10",
    "sequence": 3,
    "reason": "malformed",
    "parked_at": "2026-02-13T01:05:00+00:00",
}


def refusal(problem: Problem) -> tuple[int, Any]:
    """Return (status, body) as the services answer this problem."""
    return problem.status, json.loads(bytes(problem.response().body))


class Services(BaseHTTPRequestHandler):
    """A stand-in for all four services. `asked` keeps the requests."""

    asked: list[tuple[str, str, Any]]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.asked.append((self.command, self.path, json.loads(body) if body else None))
        path = self.path.partition("?")[0]
        status, answer = 200, None
        if self.headers.get("authorization") != f"Bearer {OPS}":
            status, answer = refusal(unauthorized())
        elif path == "/v1/stages":
            answer = VERDICT
        elif path == "/v1/parked":
            answer = {"items": [PARKED], "next": None}
        elif path == "/v1/parked/7":
            answer = {"id": 7, "reason": "malformed", "held": 2}
        elif path == "/v1/parked/8/replay":
            problem = Problem(409, "still-wrong", vi="Vẫn chưa thể áp dụng.", en="It still cannot be applied.")
            status, answer = refusal(problem)
        elif path == "/v1/due":
            days = [{"date": "2026-01-09", "counted": True, "number": 1, "why": "thứ Sáu", "why_en": "Friday"}]
            answer = {"due_at": "2026-01-09T17:00:00+07:00", "days": days}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[list[tuple[str, str, Any]]]:
    Services.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Services) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        names = ("intake", "workflow", "idlookup", "notify")
        (tmp_path / "endpoints.json").write_text(json.dumps({**dict.fromkeys(names, url), "tokens": {"ops": OPS}}))
        yield Services.asked
        server.shutdown()


def hoso(tmp_path: Path, *arguments: str) -> str:
    done = CliRunner().invoke(cli.build(), [*arguments, "--data", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_stages_shows_each_stage_and_the_sentence(tmp_path: Path, asked: list[Any]) -> None:
    output = hoso(tmp_path, "stages")
    assert "Cấp số định danh: 6 hồ sơ." in output
    assert "2 d 3 h" in output
    assert max(map(len, output.splitlines())) <= 80
    assert asked == [("GET", "/v1/stages", None)]


def test_parked_lists_every_service_and_acts_on_one_record(tmp_path: Path, asked: list[Any]) -> None:
    listed = hoso(tmp_path, "parked", "list")
    for service in ("intake", "workflow", "idlookup", "notify"):
        assert f"{service}:7" in listed
    for whole in (PARKED["topic"], PARKED["dossier_id"], PARKED["reason"], "13/02/2026 08:05:00"):
        assert str(whole) in listed
    assert max(map(len, listed.splitlines())) <= 80
    assert "malformed" in hoso(tmp_path, "parked", "show", "notify:7")
    hoso(tmp_path, "parked", "replay", "workflow:7")
    hoso(tmp_path, "parked", "discard", "workflow:7", "--reason", "written twice by hand")
    assert asked[-2:] == [
        ("POST", "/v1/parked/7/replay", None),
        ("POST", "/v1/parked/7/discard", {"reason": "written twice by hand"}),
    ]


def test_a_refusal_is_printed_in_both_languages(tmp_path: Path, asked: list[Any]) -> None:
    with pytest.raises(Trouble) as raised:
        hoso(tmp_path, "parked", "replay", "workflow:8")
    assert (raised.value.vi, raised.value.en) == ("Vẫn chưa thể áp dụng.", "It still cannot be applied.")


def test_an_unknown_service_is_refused_without_a_request(tmp_path: Path, asked: list[Any]) -> None:
    done = CliRunner().invoke(cli.build(), ["parked", "show", "elsewhere:7", "--data", str(tmp_path)])
    assert done.exit_code == 2
    assert asked == []


def test_due_prints_the_time_and_each_day_counted(tmp_path: Path, asked: list[Any]) -> None:
    output = hoso(tmp_path, "due", "--procedure", "1.001193", "--received", "2026-01-08T10:00+07:00")
    assert "09/01/2026 17:00" in output
    assert "thứ Sáu / Friday" in output
    assert asked == [("GET", "/v1/due?procedure=1.001193&received=2026-01-08T10%3A00%3A00%2B07%3A00", None)]


def test_due_without_a_stack_uses_the_shipped_rules(tmp_path: Path) -> None:
    # Received after 15:00 on the Friday before Tết, with one working day by the rule: the holidays are skipped.
    output = hoso(tmp_path, "due", "--procedure", "2.000635", "--received", "2026-02-13T15:30+07:00")
    assert "By the shipped rules" in output
    received = datetime.fromisoformat("2026-02-13T15:30+07:00")
    explanation = explain(WorkingCalendar(), received, shipped()["2.000635"].time)
    assert f"{explanation.due_office_at:%d/%m/%Y %H:%M}" in output
    assert explanation.due_office_at.date() > date(2026, 2, 22)
    for day in explanation.days:
        assert str(day.date) in output
    with pytest.raises(Trouble) as raised:
        hoso(tmp_path, "due", "--procedure", "9.999999", "--received", "2026-02-13T15:30+07:00")
    assert "9.999999" in raised.value.en


def test_the_shipped_rules_answer_with_the_same_fields_as_the_service() -> None:
    answer = worked_out("1.001193", datetime.fromisoformat("2026-01-08T10:00+07:00"))
    assert answer is not None
    assert answer["due_at"].startswith("2026-01-0")
    assert {"date", "counted", "number", "why", "why_en"} == set(answer["days"][0])


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
def test_without_a_stack_the_command_says_so_whatever_the_locale(tmp_path: Path, locale: dict[str, str]) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-m", "deploy.local.cli", "stages", "--data", str(tmp_path)],
        env={**bare, **locale},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Hãy chạy `make up`" in done.stderr.decode()
    assert "No stack runs" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_every_command_explains_itself_in_both_languages() -> None:
    commands = ["up", "doctor", "stages", "due", "verify", "parked"]
    commands += ["parked list", "parked show", "parked replay", "parked discard"]
    for command in commands:
        done = CliRunner().invoke(cli.build(), [*command.split(), "--help"])
        assert done.exit_code == 0
        assert " / " in done.output, command


def test_doctor_finds_a_server_that_may_lose_data(tmp_path: Path) -> None:
    server = Postgres(tmp_path, ports.free_port(), settings={"synchronous_commit": "off"})
    server.start()
    try:
        levels = {finding.en: finding.level for finding in examine(tmp_path / "x", 8000, "embedded", server.dsn())}
        assert levels["fsync is on."] == "ok"
        [risky] = [en for en, level in levels.items() if level == "wrong" and "synchronous_commit" in en]
        assert "off" in risky
        server.stop()
        with (server.account.data / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\n")
        wrong = [finding.en for finding in examine(tmp_path, 8000, "embedded", "embedded") if finding.level == "wrong"]
        assert any("fsync is off" in en for en in wrong)
    finally:
        server.destroy()


def test_doctor_names_a_broker_that_does_not_answer(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{ports.free_port()}"
    found = [finding for finding in examine(tmp_path, ports.free_base(), nowhere, "embedded") if finding.level != "ok"]
    assert [finding.level for finding in found if nowhere in finding.en] == ["wrong"]


def test_doctor_says_that_the_embedded_broker_is_for_demos_only() -> None:
    [finding] = _broker("embedded")
    assert finding.level == "note"
    assert "demos only" in finding.en


GOOD = {
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "retention.ms": "-1",
    "retention.bytes": "-1",
}


@pytest.mark.parametrize(
    ("brokers", "copies", "change", "sends", "expected"),
    [
        (3, 3, {}, "", []),
        (3, 3, {"min.insync.replicas": "1"}, "", [("wrong", "min.insync.replicas")]),
        (3, 3, {"min.insync.replicas": "3"}, "", [("note", "one broker down")]),
        (3, 2, {"min.insync.replicas": "1"}, "", [("wrong", "is on 2"), ("wrong", "min.insync.replicas")]),
        (3, 3, {"unclean.leader.election.enable": "true"}, "", [("wrong", "lags behind")]),
        (3, 3, {"retention.ms": "604800000"}, "", [("wrong", "unread records")]),
        (3, 3, {"retention.bytes": "1000000"}, "", [("wrong", "unread records")]),
        (3, 3, {}, "UnknownError", [("wrong", "idempotent")]),
        (
            1,
            1,
            {"min.insync.replicas": "1"},
            "",
            [("note", "only 1"), ("note", "is on 1"), ("note", "on only one broker")],
        ),
    ],
)
def test_doctor_judges_a_kafka_by_the_records_that_it_may_lose(
    brokers: int, copies: int, change: dict[str, str], sends: str, expected: list[tuple[str, str]]
) -> None:
    cluster = Cluster(brokers, GOOD, {SUBMISSIONS: Topic(copies, {**GOOD, **change})}, sends)
    findings = [finding for finding in judge(cluster) if finding.level != "ok"]
    assert [finding.level for finding in findings] == [level for level, _ in expected]
    for finding, (_, part) in zip(findings, expected, strict=True):
        assert part in finding.en


@pytest.mark.parametrize(
    ("topic", "change", "complains"),
    [
        (LIFECYCLE, {"retention.ms": "7776000000"}, False),
        (LIFECYCLE, {"retention.bytes": "1000000"}, True),
        (STATE, {"retention.ms": "604800000", "retention.bytes": "1000000"}, False),
    ],
)
def test_doctor_accepts_a_retention_time_for_the_public_events_but_no_size_limit(
    topic: str, change: dict[str, str], complains: bool
) -> None:
    """A compacted topic keeps the last record of each key, whatever its retention settings are."""
    cluster = Cluster(3, GOOD, {topic: Topic(3, {**GOOD, **change})}, "")
    assert [finding.level for finding in judge(cluster) if finding.level != "ok"] == ["wrong"] * complains


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0.25, "0.2 s"), (90, "90 s"), (900, "15 min"), (7_500, "2 h 5 min"), (183_600, "2 d 3 h")],
)
def test_a_duration_is_printed_in_its_two_largest_units(seconds: float | None, words: str) -> None:
    assert spell_seconds(seconds) == words
