"""The texts: both languages, code and status, and nothing that shows a stranger what the dossier is notice."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from jinja2 import UndefinedError
from jinja2.exceptions import SecurityError

from services.notify.texts import Area, NoticeText, Texts
from services.workflow.lifecycle.decision_builder import NOTICES, OTHER_NOTICES
from services.workflow.procedures import shipped
from shared.clock import VIETNAM
from shared.contract import events

CODE = "H44.99-250825-0001"
DUE = datetime(2025, 8, 27, 17, 0, tzinfo=VIETNAM)
STATUSES = {
    1: "Mới đăng ký",
    2: "Được tiếp nhận",
    3: "Không được tiếp nhận",
    4: "Đang xử lý",
    5: "Yêu cầu bổ sung giấy tờ",
    6: "Yêu cầu thực hiện nghĩa vụ tài chính",
    8: "Dừng xử lý",
    9: "Đã xử lý xong",
    10: "Đã trả kết quả",
}
TELLING = (
    *("khai sinh", "khai tử", "kết hôn", "hôn nhân", "định danh", "chứng thực", "trợ cấp", "đất", "giám hộ"),
    *("birth", "death", "marriage", "identif", "certif", "pension", "land", "guardian"),
)
texts = Texts()
TEXTS = [NoticeText(kind, kind, code, 2, due) for kind in texts.kinds for code in (CODE, None) for due in (DUE, None)]
TEXTS += [NoticeText("unheard-of", "Unheard", code, status) for status in range(11) for code in (CODE, None)]


@pytest.mark.parametrize("notice", TEXTS, ids=str)
def test_every_notice_has_both_languages_and_its_code(notice: NoticeText) -> None:
    subject, body = texts.mail(notice)
    for text in (texts.short(notice), body):
        assert "Hồ sơ" in text
        assert "ossier" in text
        assert (CODE in text) == (notice.dossier_code is not None)
        assert "None" not in text
        assert text.index("Hồ sơ") < text.index("ossier")
    assert "\n" not in subject
    assert "\n" not in texts.short(notice)


@pytest.mark.parametrize("notice", TEXTS, ids=str)
def test_no_notice_names_a_procedure_or_carries_a_number(notice: NoticeText) -> None:
    whole = " ".join((texts.short(notice), *texts.mail(notice))).lower()
    for procedure in shipped().values():
        assert procedure.names.vi.lower() not in whole
        assert procedure.names.en.lower() not in whole
    for word in TELLING:
        assert word not in whole
    assert not re.search(r"\d{7,}", whole.replace(CODE.lower(), ""))


@pytest.mark.parametrize("notice", TEXTS, ids=str)
def test_a_short_message_fits_four_sms(notice: NoticeText) -> None:
    # Vietnamese needs UCS-2: 67 characters in each part of a long message.
    assert len(texts.short(notice)) <= 4 * 67


@pytest.mark.parametrize(("status", "name"), STATUSES.items())
def test_an_unknown_kind_gets_the_text_of_the_national_status(status: int, name: str) -> None:
    vi, _ = texts.sentence(NoticeText("unheard-of", "Unheard", CODE, status))
    assert vi.rstrip(".") == name[0].lower() + name[1:]


def test_every_notice_of_workflow_has_a_text_of_its_own() -> None:
    assert set(NOTICES) <= set(texts.kinds)
    assert set(OTHER_NOTICES) <= set(texts.kinds)


@pytest.mark.parametrize(("kind", "cause"), OTHER_NOTICES.items())
def test_a_kind_of_its_own_has_another_text_than_its_cause(kind: str, cause: str) -> None:
    assert texts.sentence(NoticeText(kind, cause, CODE, 1)) != texts.sentence(NoticeText(cause, cause, CODE, 1))


def test_a_result_without_its_number_says_that_something_is_still_awaited() -> None:
    vi, en = texts.sentence(NoticeText("ready_without_number", "DossierResolved", CODE, 9))
    assert "còn chờ" in vi
    assert "still awaited" in en


def test_every_text_belongs_to_a_lifecycle_fact_or_a_kind_of_workflow() -> None:
    facts = {fact.__name__ for fact in events.EVENT_TYPES.values() if fact.topic == events.LIFECYCLE}
    assert {kind for kind in texts.kinds if kind[0].isupper()} <= facts


def test_a_text_that_uses_more_than_it_may_raises() -> None:
    with pytest.raises(UndefinedError):
        texts._env.from_string("{{ full_name }}").render(due=None)
    with pytest.raises(SecurityError):
        texts._env.from_string("{{ due.__class__.__mro__ }}").render(due="x")


def test_the_call_list_escapes_what_people_typed() -> None:
    call = {"full_name": "<script>x</script>", "phone": "1", "dossier_code": CODE, "vi": "v", "en": "e"}
    page = texts.call_list("html", [Area("Khu <b>3</b>", [call])], agency=None, office_at=DUE)
    assert "<script>" not in page
    assert "<b>" not in page
