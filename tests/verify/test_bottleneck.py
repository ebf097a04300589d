"""The bottleneck, computed from metrics pages only."""

from __future__ import annotations

import asyncio

import pytest

from deploy.verify.bottleneck import find_bottleneck, list_scores, scrape


def page(**stages: tuple[float | str, float | str]) -> str:
    """Return a metrics page. `stages`: stage=(oldest waiting seconds, target seconds)."""
    lines = [
        "# HELP dossier_stage_oldest_waiting_seconds Age of the oldest waiting item.",
        "# TYPE dossier_stage_oldest_waiting_seconds gauge",
        *(f'dossier_stage_oldest_waiting_seconds{{stage="{stage}"}} {age}' for stage, (age, _) in stages.items()),
        "# TYPE dossier_stage_target_seconds gauge",
        *(f'dossier_stage_target_seconds{{stage="{stage}"}} {target}' for stage, (_, target) in stages.items()),
        "# TYPE dossier_stage_waiting gauge",
        *(f'dossier_stage_waiting{{stage="{stage}"}} 1000000' for stage in stages),
    ]
    return "\n".join(lines) + "\n"


def test_the_stage_with_the_highest_score_over_one_is_the_bottleneck() -> None:
    found = find_bottleneck([page(approval=(30000, 28800), appraisal=(100, 28800)), page(id_number=(90, 3))])
    assert found is not None
    assert (found.stage, found.score, found.oldest_seconds, found.target_seconds) == ("id_number", 30.0, 90.0, 3.0)


def test_a_few_old_items_are_named_before_many_new_ones() -> None:
    """Only age over target counts, not the number of waiting items."""
    found = find_bottleneck([page(reception=(3000, 3600), id_number=(172800, 600))])
    assert found is not None
    assert found.stage == "id_number"


@pytest.mark.parametrize("age", [0, 3599, 3600])
def test_a_stage_within_its_target_is_no_bottleneck(age: int) -> None:
    assert find_bottleneck([page(reception=(age, 3600))]) is None


def test_the_oldest_age_of_several_services_counts() -> None:
    relays = [page(relay=(age, 2)) for age in (0, 9, 1)]
    found = find_bottleneck(relays)
    assert found is not None
    assert found.score == 4.5


def test_an_age_without_a_target_uses_the_target_from_another_page() -> None:
    bare = 'dossier_stage_oldest_waiting_seconds{stage="notify"} 50\n'
    found = find_bottleneck([bare, page(notify=(0, 10))])
    assert found is not None
    assert found.score == 5


def test_values_that_cannot_be_scored_are_left_out() -> None:
    assert list_scores([page(issuing=("NaN", 60), notify=(5, 0), relay=("+Inf", 2))]) == []
    assert find_bottleneck([]) is None
    assert find_bottleneck(["# nothing here\n"]) is None


def test_scores_are_listed_highest_first_then_by_name() -> None:
    scores = list_scores([page(b=(5, 5), a=(5, 5), c=(50, 5))])
    assert [(found.stage, found.score) for found in scores] == [("c", 10.0), ("a", 1.0), ("b", 1.0)]


async def test_a_service_that_does_not_answer_is_left_out_of_the_scrape() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = page(id_number=(90, 3)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        pages = await scrape({"idlookup": f"http://127.0.0.1:{port}", "notify": "http://127.0.0.1:1", "registry": "x"})
    assert list(pages) == ["idlookup"]
    found = find_bottleneck(pages.values())
    assert found is not None
    assert found.stage == "id_number"
