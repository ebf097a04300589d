"""Strange submissions: whatever comes, the answer is one of the promised ones, never a 500."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fixtures.services import TOKENS
from tests.intake.conftest import DOCUMENTS, Intake

PROMISED = {200, 201, 400, 409, 413, 415, 422}
EXAMPLES = [document["example"] for document in DOCUMENTS.values()]
ROUNDS = 1_500

strange = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**40), max_value=10**40),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=40),
    st.text(alphabet=st.characters(codec=None, categories=["Cs", "Cc", "Cf", "Nd"]), max_size=12),
    st.sampled_from(["", " ", "\x00", "\ud800", "0" * 12, "9" * 400, "2025-02-30", "1' or '1'='1", "../" * 9, "%s%n"]),
    st.recursive(st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)),
)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if way:
        yield way
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*way, name))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An example with a few values exchanged, doubled or removed, sometimes with a few broken bytes."""
    body = copy.deepcopy(draw(st.sampled_from(EXAMPLES)))
    for _ in range(draw(st.integers(0, 3))):
        spots = list(places(body))
        *way, last = draw(st.sampled_from(spots))
        holder: Any = body
        for name in way:
            holder = holder[name]
        match draw(st.sampled_from(["exchange", "take away", "add", "double"])):
            case "exchange":
                holder[last] = draw(strange)
            case "take away":
                del holder[last]
            case "add" if isinstance(holder, dict):
                holder[draw(st.text(max_size=20))] = draw(strange)
            case _ if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[last]))
    text = json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=4)) + text[at + draw(st.integers(0, 4)) :]
    return text


async def test_whatever_is_submitted_the_answer_is_one_of_the_promised(intake: Intake) -> None:
    seen: dict[int, int] = {}
    headers = {"Authorization": f"Bearer {TOKENS['counter']}", "Content-Type": "application/json"}

    with httpx2.Client(base_url=intake.service.url, headers=headers, timeout=30) as client:

        @settings(
            max_examples=ROUNDS,
            deadline=timedelta(seconds=5),
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(body=mutated(), key=st.sampled_from([f"fuzz-{number}" for number in range(200)]))
        def submit(body: bytes, key: str) -> None:
            answer = client.post("/v1/dossiers", content=body, headers={"Idempotency-Key": key})
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            assert answer.status_code in PROMISED, answer.text
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json"

        submit()
    assert {201, 400, 409, 422} <= set(seen), seen
    assert await intake.pool.fetchval(
        "select count(*) = (select count(*) from events where type = 'DossierSubmitted') from submissions"
    )
    assert "Traceback" not in intake.service.log.read_text("utf-8")
