"""Each log line is one JSON object and shows no number or phone of a person."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from shared.telemetry.logs import as_line, mask_numbers

SCRIPT = """
import logging, sys
import structlog
from shared.telemetry import logs
logs.configure("intake", "INFO")
log = structlog.get_logger("t")
log.info("sent", number="079123456789", text="phone 0912345678 of A", dossier_id="019c5b2e-7f00-7abc-8def-001234567890")
logging.getLogger("library").warning("number %s", "079123456789")
try:
    raise ValueError("duplicate key 079123456789")
except ValueError:
    log.exception("failed")
log.info("vi", text="số 079123456789 của bà Nguyễn Thị Hoa")
log.info("listed", numbers=["079123456789"], row={"phone": "+84912345678"})
"""


@pytest.fixture(scope="module")
def lines() -> list[str]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_every_line_is_one_json_object_with_the_service(lines: list[str]) -> None:
    assert len(lines) == 5
    assert {json.loads(line)["service"] for line in lines} == {"intake"}


def test_no_line_shows_a_persons_number_or_phone(lines: list[str]) -> None:
    for line in lines:
        assert "079123456789" not in line
        assert "912345678" not in line


def test_a_dossier_id_stays_readable(lines: list[str]) -> None:
    assert "019c5b2e-7f00-7abc-8def-001234567890" in lines[0]


@pytest.mark.parametrize("value", [2**70, {1: "a"}, object()])
def test_a_value_that_json_cannot_represent_is_still_logged(value: object) -> None:
    assert (
        json.loads(as_line({"event": "published", "value": value, "text": "Nguyễn"}, default=repr))["text"] == "Nguyễn"
    )


@pytest.mark.parametrize("kept", ["2026-02-13T08:00:00", "12345678", "1234567890123456", "a079123456789b"])
def test_text_that_is_not_a_persons_number_stays(kept: str) -> None:
    assert mask_numbers(None, "", {"text": kept})["text"] == kept
