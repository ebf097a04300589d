"""Signing: who may sign in which capacity, which kinds of signature there are, and what may change after signing.

`Dossier.result` is an object: `number`, `book`, `blank`, `signed_by`, `signed_as`, `signature`, `sha256`. It is set by
outcomes (`sign`, `issue`, `hand_over`) or by `set_result`. The functions that read fields change nothing, so that a
rule can call them before its first change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from services.workflow.lifecycle.decision_builder import DecisionBuilder
from services.workflow.lifecycle.state import RETURNED, Dossier
from services.workflow.procedures import Capacity, Procedure
from shared.contract.events import ResultSigned
from shared.refusals import Refused

CAPACITIES: tuple[str, ...] = get_args(Capacity)
KINDS = ("digital", "wet", "wet_scanned")
"""`wet`: signed by hand on paper; `wet_scanned`: the same, with the scan's `sha256`."""
CAPACITY_PATTERN, KIND_PATTERN = (f"^({'|'.join(map(re.escape, words))})$" for words in (CAPACITIES, KINDS))
SIGNATURE_FIELDS = ("signed_by", "signed_as", "signature", "sha256")
MAX_CHARACTERS = {"number": 60, "book": 60, "signed_by": 120, "signed_as": 4, "signature": 20}


class Signature(NamedTuple):
    signed_by: str
    signed_as: str
    signature: str


class RegisterEntry(NamedTuple):
    """The number of the result and the book that it is entered in."""

    number: str | None
    book: str | None


def read_signature(dossier: Dossier, procedure: Procedure, fields: Mapping[str, Any], holder: str) -> Signature:
    """The signature from the fields of an outcome, else from the result so far, else by default.

    Raises Refused `bad-field`.

    By default the holder of the task signs, in the procedure's capacity, digitally.
    """
    result = dossier.result or {}
    capacity = _text(fields, "signed_as") or result.get("signed_as") or procedure.signed_as
    kind = _text(fields, "signature") or result.get("signature") or "digital"
    if capacity not in CAPACITIES:
        raise Refused("bad-field", "Thẩm quyền ký không hợp lệ.", f"signed_as must be {_any_of(CAPACITIES)}.")
    if kind not in KINDS:
        raise Refused("bad-field", "Hình thức ký không hợp lệ.", f"signature must be {_any_of(KINDS)}.")
    return Signature(_text(fields, "signed_by") or result.get("signed_by") or holder, capacity, kind)


def read_entry(dossier: Dossier, fields: Mapping[str, Any]) -> RegisterEntry:
    """Number and book from the fields of an outcome, else from the result so far. Raises Refused `bad-field`."""
    result = dossier.result or {}
    return RegisterEntry(
        _text(fields, "number") or result.get("number"),
        _text(fields, "book") or result.get("book"),
    )


def sign(builder: DecisionBuilder, signature: Signature) -> None:
    builder.dossier.result = {**(builder.dossier.result or {}), **signature._asdict()}
    builder.emit(ResultSigned, signed_as=signature.signed_as, signature=signature.signature)


def enter(dossier: Dossier, entry: RegisterEntry) -> None:
    dossier.result = {**(dossier.result or {}), **entry._asdict()}


def void_signature(dossier: Dossier) -> None:
    """Remove the signature, because the result goes back to the signatory, who must sign it again."""
    result = dossier.result or {}
    dossier.result = {name: value for name, value in result.items() if name not in SIGNATURE_FIELDS}


def is_signed(dossier: Dossier, procedure: Procedure) -> bool:
    """Whether ResultSigned was published and the result was not sent back to the signatory since."""
    if procedure.same_visit:
        return dossier.state == RETURNED
    return any(step.stage == "approval" for step in procedure.steps[: max(dossier.step, 0)])


def set_result(dossier: Dossier, procedure: Procedure, result: dict[str, Any]) -> None:
    """Merge `result` into the dossier's result. Raises Refused `not-received`, `already-ended`, `already-signed`.

    After signing, a field that has a value keeps it, except the book. Only the scan of a wet signature may be added
    (`wet` becomes `wet_scanned`, with its `sha256`), even after the hand-over.
    """
    if dossier.received_office_at is None:
        raise Refused("not-received", "Hồ sơ chưa được tiếp nhận.", "The dossier has not been received.", conflict=True)
    before = dossier.result or {}
    after = {**before, **result}
    different = {name for name in after if after[name] != before.get(name)}
    kinds = (before.get("signature"), after.get("signature"))
    is_scan = kinds == ("wet", "wet_scanned") and different == {"signature", "sha256"}
    if dossier.ended and different and not (is_scan and dossier.state == RETURNED):
        raise Refused("already-ended", "Hồ sơ đã kết thúc.", "The dossier has ended.", conflict=True)
    replaced = {name for name in different if before.get(name) is not None and name != "book"}
    if replaced and not is_scan and is_signed(dossier, procedure):
        raise Refused(
            "already-signed",
            "Kết quả đã ký, không sửa được; chỉ được bổ sung bản quét của bản ký tay (wet_scanned, sha256).",
            "The result is signed; only the scan of a wet signature may be added (wet_scanned, sha256).",
            conflict=True,
        )
    dossier.result = after


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    """The text of a field without surrounding spaces; None if it is empty. Raises Refused if it is too long or no text.

    It is never cut, because a signature needs the whole name.
    """
    value = fields.get(name)
    if value is None:
        return None
    limit = MAX_CHARACTERS[name]
    if not isinstance(value, str) or len(value.strip()) > limit:
        raise Refused(
            "bad-field", f"`{name}` phải là chữ, dài nhất {limit}.", f"`{name}` must be text of at most {limit}."
        )
    return value.strip() or None


def _any_of(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
