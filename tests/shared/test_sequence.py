"""Events that come in any order and any number of times are applied once and in order, or held, or parked."""

from __future__ import annotations

from collections import defaultdict
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contract.envelope import Received, StreamKey, fingerprint
from shared.contract.events import SUBMISSIONS
from shared.inbox.sequence import NOTHING, Cause, LastProcessed, Position, plan
from tests.shared.records import received

DOSSIERS = [UUID(int=number) for number in range(1, 4)]
LENGTH = 6
EVENTS = {(d, n): received(d, n) for d in DOSSIERS for n in range(1, LENGTH + 1)}


class Memory:
    """The inbox store as plain dictionaries."""

    def __init__(self, poison: set[tuple[UUID, int]] = frozenset()) -> None:  # type: ignore[assignment]
        self.positions: dict[StreamKey, LastProcessed] = defaultdict(lambda: NOTHING)
        self.held: dict[StreamKey, dict[int, Received]] = defaultdict(dict)
        self.reasons: dict[Position, str] = {}
        self.parked: dict[StreamKey, dict[int, int]] = defaultdict(dict)
        self.records: list[tuple[Received, str, bool]] = []
        self.applied: dict[UUID, list[int]] = defaultdict(list)
        self.repeats = 0
        self._poison = poison

    def apply(self, batch: list[Received], *, singly: bool = False, stream: StreamKey | None = None) -> int:
        """Apply a batch as the consumer does. After an event that raises, plan the whole batch again without it.

        Returns how many events took effect.
        """
        poison: dict[Position, Cause] = {}
        streams = {StreamKey(e.topic, e.dossier_id) for e in batch if e.dossier_id} | ({stream} if stream else set())
        while True:
            last_processed = {key: self.positions[key] for key in streams}
            result = plan(batch, last_processed, self.held, self.parked, poison, singly=singly)
            bad = next((e for e in result.ready if (e.dossier_id, e.sequence) in self._poison), None)
            if bad is None:
                break
            assert bad.dossier_id is not None
            poison[Position(bad.topic, bad.dossier_id, bad.sequence)] = Cause("rule", "")
        for topic, dossier_id, sequence in result.released:
            del self.held[topic, dossier_id][sequence]
        for event, reason in result.hold:
            assert event.dossier_id is not None
            self.held[event.topic, event.dossier_id][event.sequence] = event
            self.reasons[event.topic, event.dossier_id, event.sequence] = reason
        for (topic, dossier_id), reason in result.waits.items():
            for sequence in self.held[topic, dossier_id]:
                self.reasons[topic, dossier_id, sequence] = reason
        for event, reason, _, blocks in result.park:
            assert event.dossier_id is not None
            self.records.append((event, reason, blocks))
            if blocks:
                self.parked[event.topic, event.dossier_id][event.sequence] = fingerprint(event.ce_id)
        for key, (first, last, fingerprints) in result.advances.items():
            assert first == self.positions[key].sequence + 1
            assert len(fingerprints) == last
            self.positions[key] = LastProcessed(last, fingerprints)
        for event in result.ready:
            assert event.dossier_id is not None
            self.applied[event.dossier_id].append(event.sequence)
        self.repeats += result.repeats
        return len(result.ready)


def stream_of(dossier_id: UUID) -> StreamKey:
    return StreamKey(SUBMISSIONS, dossier_id)


sequences = st.tuples(st.sampled_from(DOSSIERS), st.integers(1, LENGTH))
deliveries = st.lists(st.lists(sequences, max_size=8), max_size=12)


@given(deliveries, st.sets(sequences, max_size=3), st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_order_repetition_and_batching_applies_each_event_once_in_order(
    batches: list[list[tuple[UUID, int]]], poison: set[tuple[UUID, int]], singly: bool
) -> None:
    memory = Memory(poison)
    for batch in batches:
        memory.apply([EVENTS[one] for one in batch], singly=singly)
    received_events = {one for batch in batches for one in batch}
    for dossier_id in DOSSIERS:
        applied = memory.applied[dossier_id]
        assert applied == list(range(1, len(applied) + 1))
        known = set(applied) | set(memory.held[stream_of(dossier_id)]) | set(memory.parked[stream_of(dossier_id)])
        assert known == {n for d, n in received_events if d == dossier_id}, (
            "an event that came is applied, held or parked"
        )
        if not singly:
            following = len(applied) + 1
            assert following not in memory.held[stream_of(dossier_id)], "what could be applied is not held"
        assert all((dossier_id, n) in poison for n in memory.parked[stream_of(dossier_id)])


@given(deliveries, st.sets(sequences, max_size=3))
@settings(max_examples=200, deadline=None)
def test_after_everything_was_sent_again_only_events_behind_a_parked_one_wait(
    batches: list[list[tuple[UUID, int]]], poison: set[tuple[UUID, int]]
) -> None:
    memory = Memory(poison)
    for batch in batches:
        memory.apply([EVENTS[one] for one in batch])
    memory.apply(list(EVENTS.values()))
    for dossier_id in DOSSIERS:
        first_bad = min((n for d, n in poison if d == dossier_id), default=LENGTH + 1)
        assert memory.applied[dossier_id] == list(range(1, first_bad))
        assert set(memory.parked[stream_of(dossier_id)]) == ({first_bad} if first_bad <= LENGTH else set())
        behind = set(memory.held[stream_of(dossier_id)])
        assert behind == set(range(first_bad + 1, LENGTH + 1))
        assert all(memory.reasons[SUBMISSIONS, dossier_id, n] == "behind" for n in behind)


def test_an_event_that_came_too_early_is_held_and_applied_when_the_gap_fills() -> None:
    dossier_id = uuid4()
    memory = Memory()
    memory.apply([received(dossier_id, 3), received(dossier_id, 2)])
    assert memory.applied[dossier_id] == []
    assert set(memory.reasons.values()) == {"gap"}
    memory.apply([received(dossier_id, 1)])
    assert memory.applied[dossier_id] == [1, 2, 3]
    assert not memory.held[stream_of(dossier_id)]


def test_late_events_after_a_refill_are_not_taken_for_repeats() -> None:
    """With a high-water mark the consumer would drop 1…99 after it has applied 100…249."""
    dossier_id = uuid4()
    memory = Memory()
    events = [received(dossier_id, n) for n in range(1, 250)]
    memory.apply(events[99:])
    memory.apply(events[:99])
    assert memory.applied[dossier_id] == list(range(1, 250))


def test_another_event_with_a_sequence_already_taken_is_parked_and_blocks_no_event() -> None:
    dossier_id = uuid4()
    memory = Memory()
    memory.apply([received(dossier_id, 1), received(dossier_id, 3)])
    impostors = [received(dossier_id, 1), received(dossier_id, 3)]
    memory.apply(impostors)
    assert memory.records == [(event, "identity-conflict", False) for event in impostors]
    memory.apply([received(dossier_id, 2)])
    assert memory.applied[dossier_id] == [1, 2, 3]


def test_successors_of_a_parked_event_are_held_and_applied_once_it_is_skipped() -> None:
    dossier_id = uuid4()
    memory = Memory({(dossier_id, 2)})
    events = {n: received(dossier_id, n) for n in range(1, 5)}
    memory.apply([events[1], events[2], events[4]])
    assert memory.reasons == {(*stream_of(dossier_id), 4): "behind"}
    memory.positions[stream_of(dossier_id)] = LastProcessed(
        2, [*memory.positions[stream_of(dossier_id)].fingerprints, 0]
    )
    del memory.parked[stream_of(dossier_id)][2]
    memory.apply([], stream=stream_of(dossier_id))
    assert memory.reasons == {(*stream_of(dossier_id), 4): "gap"}, "now it waits for 3, which has not come"
    memory.apply([events[3]])
    assert memory.applied[dossier_id] == [1, 3, 4]


def test_applied_singly_a_held_event_comes_before_a_new_one() -> None:
    dossier_id = uuid4()
    memory = Memory()
    first, second, third = (received(dossier_id, n) for n in (1, 2, 3))
    memory.apply([second])
    memory.apply([first, third], singly=True)
    assert memory.applied[dossier_id] == [1]
    while memory.apply([], stream=stream_of(dossier_id), singly=True):
        pass
    assert memory.applied[dossier_id] == [1, 2, 3]


def test_an_event_of_unknown_type_is_parked_and_the_events_behind_it_are_held() -> None:
    from shared.contract.envelope import parse
    from tests.shared.records import record

    dossier_id = uuid4()
    memory = Memory()
    unknown = parse(record(dossier_id, 1, type="DossierDreamt"))
    memory.apply([unknown, received(dossier_id, 2)])
    assert [(reason, blocks) for _, reason, blocks in memory.records] == [("unknown-type", True)]
    assert memory.reasons == {(*stream_of(dossier_id), 2): "behind"}
