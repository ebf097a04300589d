"""The benchmark's result file: figures that were not measured are null, and a part changes only its own figures."""

from __future__ import annotations

import json
from pathlib import Path

from bench.__main__ import keep
from bench.parts import NAMED, PARTS, merged


def test_a_figure_that_was_not_measured_is_present_as_null() -> None:
    result = merged({}, {"throughput": {"ours": 5000.0}})
    assert result["throughput"] == {**dict.fromkeys(NAMED["throughput"]), "ours": 5000.0}
    assert result["isolation"]["hang"] == {"throughput_ratio": None, "wait_p95_ratio": None}
    assert set(NAMED) <= set(result)


def test_a_part_measured_again_replaces_only_its_own_figures() -> None:
    stored = merged({}, {"throughput": {"ours": 1.0, "kafka": 7.0}, "outage": {"drain_share": 0.9}})
    result = merged(stored, {"throughput": {"ours": 2.0, "dbos": None}})
    assert (result["throughput"]["ours"], result["throughput"]["kafka"]) == (2.0, 7.0)
    assert result["throughput"]["dbos"] is None
    assert result["outage"]["drain_share"] == 0.9


def test_a_failed_measurement_does_not_keep_the_old_value() -> None:
    stored = merged({}, {"throughput": {"ours": 1.0}})
    assert merged(stored, {"throughput": {"ours": None}})["throughput"]["ours"] is None


def test_each_part_is_written_with_its_machine_and_commit_as_soon_as_it_is_measured(tmp_path: Path) -> None:
    target = tmp_path / "latest.json"
    keep(target, "throughput", "throughput", {"ours": 1.0})
    keep(target, "latency", "latency_200", {"p50_ms": 40.0})
    result = json.loads(target.read_text("utf-8"))
    assert (result["throughput"]["ours"], result["latency_200"]["p50_ms"]) == (1.0, 40.0)
    assert set(result["measured"]) == {"throughput", "latency"}
    assert {"cores", "memory_gb", "postgres", "python"} <= set(result["machine"])


def test_every_part_has_a_key_in_the_result_file() -> None:
    assert {part.key for part in PARTS.values()} == {*NAMED, "scale"}
