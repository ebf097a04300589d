"""The stages a dossier can be in, their names, and the target age of each."""

from __future__ import annotations

HUMAN = ("reception", "appraisal", "consultation", "financial_obligation", "approval", "issuing", "return")
"""Age and target in the centre's working seconds."""
MACHINE = ("identity_check", "id_number", "relay", "notify")
"""Age and target in wall seconds; the target is divided by the clock's speed."""
STAGES = (
    "reception",
    "identity_check",
    "appraisal",
    "consultation",
    "financial_obligation",
    "id_number",
    "approval",
    "issuing",
    "return",
    "relay",
    "notify",
)

NAMES = {
    "reception": ("Tiếp nhận", "reception"),
    "identity_check": ("Đối chiếu định danh", "identity check"),
    "appraisal": ("Thẩm định", "appraisal"),
    "consultation": ("Lấy ý kiến", "consultation"),
    "financial_obligation": ("Nghĩa vụ tài chính", "financial obligation"),
    "id_number": ("Cấp số định danh", "identification number"),
    "approval": ("Ký duyệt", "approval"),
    "issuing": ("Cấp số, phát hành", "issuing"),
    "return": ("Trả kết quả", "return of results"),
    "relay": ("Chuyển sự kiện", "event relay"),
    "notify": ("Thông báo", "notices"),
}
"""stage -> (Vietnamese, English)"""

TARGETS = {
    "reception": 28_800.0,
    "identity_check": 28_800.0,
    "appraisal": 28_800.0,
    "consultation": 86_400.0,
    "financial_obligation": 144_000.0,
    "id_number": 7_200.0,
    "approval": 28_800.0,
    "issuing": 14_400.0,
    "return": 28_800.0,
    "relay": 60.0,
    "notify": 900.0,
}
"""Seconds at a clock speed of 1; 28,800 is one working day. The setting HOSO_TARGETS may change each."""


def targets(changed: dict[str, float], speed: float) -> dict[str, float]:
    """The targets in force: `changed` over `TARGETS`, those of machine stages divided by `speed`. Raises ValueError."""
    unknown = changed.keys() - TARGETS.keys()
    if unknown:
        raise ValueError(f"no stage is called {sorted(unknown)[0]}")
    merged = {**TARGETS, **changed}
    return {stage: seconds / speed if stage in MACHINE else seconds for stage, seconds in merged.items()}
