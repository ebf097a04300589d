"""Sealed personal data opens for its own dossier and field, and for nothing else."""

from __future__ import annotations

import base64
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.privacy.sealed import Sealer, Tampered

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()
SEALER = Sealer(f"a:{KEY}")
DOSSIER = UUID(int=7)

values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v, max_size=3))


@given(values)
def test_a_sealed_value_opens_unchanged(value: object) -> None:
    if isinstance(value, str) and not value.isprintable():
        value = value.encode("utf-8", "replace").decode()
    assert SEALER.open(DOSSIER, "subject", SEALER.seal(DOSSIER, "subject", value)) == value


def test_the_same_value_looks_different_each_time_and_shows_nothing() -> None:
    boxes = {SEALER.seal(DOSSIER, "subject", {"full_name": "Nguyễn Văn An"}) for _ in range(50)}
    assert len(boxes) == 50
    # Long enough that fifty random texts do not contain it by chance.
    assert not any(b"full_name" in base64.b64decode(box.split(".")[1]) for box in boxes)


def test_a_sealed_value_opens_for_no_other_dossier_or_field() -> None:
    box = SEALER.seal(DOSSIER, "subject", "x")
    for dossier_id, name in ((uuid4(), "subject"), (DOSSIER, "contact")):
        with pytest.raises(Tampered):
            SEALER.open(dossier_id, name, box)


@pytest.mark.parametrize("broken", ["", "a", "a.", "a.!!!", "a.AAAA", "b.AAAA", "a." + "A" * 400])
def test_a_text_that_was_never_sealed_counts_as_tampered(broken: str) -> None:
    with pytest.raises(Tampered):
        SEALER.open(DOSSIER, "subject", broken)


def test_one_changed_byte_is_noticed() -> None:
    name, _, encoded = SEALER.seal(DOSSIER, "subject", "x").partition(".")
    raw = bytearray(base64.b64decode(encoded))
    for index in range(len(raw)):
        changed = raw.copy()
        changed[index] ^= 1
        with pytest.raises(Tampered):
            SEALER.open(DOSSIER, "subject", f"{name}.{base64.b64encode(changed).decode()}")


def test_a_new_key_seals_and_the_old_one_still_opens() -> None:
    box = SEALER.seal(DOSSIER, "subject", "x")
    rotated = Sealer(f"b:{OTHER},a:{KEY}")
    assert rotated.open(DOSSIER, "subject", box) == "x"
    assert rotated.seal(DOSSIER, "subject", "x").startswith("b.")
    with pytest.raises(Tampered):
        SEALER.open(DOSSIER, "subject", rotated.seal(DOSSIER, "subject", "x"))


@pytest.mark.parametrize("keys", ["", "a", f"a.b:{KEY}", "a:AAAA", f":{KEY}", "a:not base64!"])
def test_a_wrong_key_is_refused_at_the_start(keys: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - base64 has its own message
        Sealer(keys)
