"""The outcomes of each kind of task: code, label, required note, fields, and which outcome leads forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    code: str
    vi: str
    en: str
    forward: bool = False
    note_required: bool = False
    fields: tuple[str, ...] = ()
    """The fields that may come with the outcome; each has a default."""

    def shown(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "label": {"vi": self.vi, "en": self.en},
            "note_required": self.note_required,
            "fields": list(self.fields),
            "forward": self.forward,
        }


SIGNING = ("signed_by", "signed_as", "signature", "number", "book")
REFUSE = Outcome("refuse", "Từ chối giải quyết", "refuse", note_required=True)
SEND_BACK = Outcome("send_back", "Trả lại bước trước", "send back a step", note_required=True)
ASK_SUPPLEMENT = Outcome(
    "ask_supplement", "Yêu cầu bổ sung hồ sơ", "ask for a supplement", note_required=True, fields=("components",)
)

OUTCOMES: dict[str, tuple[Outcome, ...]] = {
    "reception": (
        Outcome("accept", "Tiếp nhận", "receive", forward=True),
        ASK_SUPPLEMENT,
        Outcome("not_accepted", "Không tiếp nhận", "do not accept", note_required=True),
    ),
    "same_visit": (
        Outcome("hand_over", "Ký và trả kết quả", "sign and hand over", forward=True, fields=SIGNING),
        REFUSE,
    ),
    "appraisal": (
        Outcome("agree", "Đạt, trình bước sau", "agree and pass on", forward=True),
        ASK_SUPPLEMENT,
        REFUSE,
    ),
    "consultation": (
        Outcome("answered", "Đã có ý kiến", "answered", forward=True),
        SEND_BACK,
        REFUSE,
    ),
    "financial_obligation": (Outcome("paid", "Đã thực hiện nghĩa vụ", "paid", forward=True), REFUSE),
    "approval": (
        Outcome("sign", "Ký duyệt", "sign", forward=True, fields=SIGNING),
        SEND_BACK,
        REFUSE,
    ),
    "issuing": (
        Outcome("issue", "Vào sổ, phát hành", "number and issue", forward=True, fields=("number", "book")),
        SEND_BACK,
    ),
    "return": (Outcome("hand_over", "Trả kết quả", "hand over", forward=True),),
    "identity_mismatch": (
        Outcome("confirmed", "Đã xác minh đúng người", "confirmed to be the person", forward=True),
        REFUSE,
    ),
    "number_held": (
        Outcome("return_without_number", "Trả kết quả khi chưa có số", "return without the number", forward=True),
        Outcome("wait", "Chờ cấp số", "wait for the number"),
    ),
    "number_doubtful": (
        Outcome("noted", "Đã xử lý với cơ quan cấp số", "taken up with the registry", forward=True),
        Outcome("ask_again", "Gửi lại yêu cầu cấp số", "ask for the number again"),
    ),
    "number_misshapen": (
        Outcome("checked", "Đã kiểm tra với cơ quan cấp số", "checked with the registry", forward=True),
    ),
    "number_late": (
        Outcome("entered", "Đã ghi sổ, báo công dân; không cần cấp lại", "entered, citizen told", forward=True),
        Outcome("entered_reissued", "Đã ghi sổ và cấp lại giấy", "entered and the certificate reissued"),
    ),
    "awaited": (),
}
"""Kind of task -> its outcomes. Exactly one leads forward; `awaited` has none, because a machine ends it."""


def find_outcome(kind: str, code: str) -> Outcome | None:
    return next((outcome for outcome in OUTCOMES[kind] if outcome.code == code), None)
