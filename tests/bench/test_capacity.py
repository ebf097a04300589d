"""The capacity page: it has the measured figures, and arithmetic that a reader can check."""

from __future__ import annotations

import json

from bench import capacity

MEASURED = {
    "throughput": {"ours": 1_000.0},
    "intake": {"ours": 1_500.0},
    "growth": {"sizes": [{"bytes_per_dossier": 30_000}, {"bytes_per_dossier": 20_000}], "task_list_p95_ms": 12.0},
    "scale": {"one": 1_000.0, "two": 1_250.0, "limited_by": {"one": "workflow", "two": "all 2 processors are busy"}},
}


def test_the_page_was_written_from_the_latest_results() -> None:
    figures = json.loads(capacity.LATEST.read_text(encoding="utf-8")) if capacity.LATEST.exists() else {}
    assert capacity.page(figures) == capacity.PAGE.read_text(encoding="utf-8"), "run python -m bench.capacity"


def test_a_figure_that_was_not_measured_is_a_dash() -> None:
    page = capacity.page({})
    assert "| submissions accepted over HTTP | — /s |" in page
    assert "| a commune | 82 | 0.00569 | — | — | 20,500 | — |" in page


def test_the_expected_load_is_compared_with_the_measured_throughput() -> None:
    page = capacity.page(MEASURED)
    # 12,136 per day, a quarter of them in one hour; three times the measured work; 20 kB per dossier (largest size).
    assert "| a province of 148 communes | 12,136 | 0.843 | 0.3 % | under 0.1 % | 3,034,000 | 60.7 GB |" in page
    assert "| the country, 3,321 communes | 272,322 | 18.9 | 5.7 % | 1.3 % | 68,080,500 | 1.4 TB |" in page
    assert "1.25 times the work of one (all 2 processors are busy)" in page
