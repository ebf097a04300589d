"""The benchmark's result file: what was not measured is null, and one part never touches another's figures."""

from __future__ import annotations

import json
from pathlib import Path

from bench.__main__ import keep
from bench.parts import NAMED, PARTS, merged


def test_a_figure_that_was_not_measured_is_null_and_there() -> None:
    result = merged({}, {"throughput": {"ours": 5000.0}})
    assert result["throughput"] == {**dict.fromkeys(NAMED["throughput"]), "ours": 5000.0}
    assert result["isolation"]["hang"] == {"throughput_ratio": None, "wait_p95_ratio": None}
    assert set(NAMED) <= set(result)


def test_a_part_measured_again_replaces_its_own_figures_alone() -> None:
    stored = merged({}, {"throughput": {"ours": 1.0, "kafka": 7.0}, "outage": {"drain_share": 0.9}})
    result = merged(stored, {"throughput": {"ours": 2.0, "dbos": None}})
    assert (result["throughput"]["ours"], result["throughput"]["kafka"]) == (2.0, 7.0)
    assert result["throughput"]["dbos"] is None
    assert result["outage"]["drain_share"] == 0.9


def test_a_figure_that_could_not_be_measured_this_time_does_not_keep_its_old_value() -> None:
    stored = merged({}, {"throughput": {"ours": 1.0}})
    assert merged(stored, {"throughput": {"ours": None}})["throughput"]["ours"] is None


def test_each_part_is_written_as_soon_as_it_is_measured_with_the_machine_and_the_commit(tmp_path: Path) -> None:
    target = tmp_path / "latest.json"
    keep(target, "throughput", "throughput", {"ours": 1.0})
    keep(target, "latency", "latency_200", {"p50_ms": 40.0})
    result = json.loads(target.read_text("utf-8"))
    assert (result["throughput"]["ours"], result["latency_200"]["p50_ms"]) == (1.0, 40.0)
    assert set(result["measured"]) == {"throughput", "latency"}
    assert {"cores", "memory_gb", "postgres", "python"} <= set(result["machine"])


def test_every_part_knows_its_place_in_the_result_file() -> None:
    assert {part.key for part in PARTS.values()} == {*NAMED, "scale"}
