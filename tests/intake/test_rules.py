"""Which submissions intake accepts: all complaints come at once, and none repeats what was sent."""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.catalogue import ProcedureCatalogue
from services.workflow.procedures import shipped
from shared.clock import VIETNAM
from shared.refusals import Complaint, Complaints
from shared.submission import rules
from shared.submission.rules import ProcedureRules

NOW = datetime(2025, 8, 25, 9, 0, tzinfo=VIETNAM)
DOCUMENTS = {
    code: procedure.model_dump(mode="json", exclude={"intake_mode", "record_only_reason"})
    for code, procedure in shipped().items()
}
RULES = {code: ProcedureRules(document) for code, document in DOCUMENTS.items()}


def example(code: str = "1.001193") -> dict[str, Any]:
    return copy.deepcopy(DOCUMENTS[code]["example"])


def refusal(body: dict[str, Any], now: datetime = NOW) -> Complaints:
    with pytest.raises(Complaints) as caught:
        rules.accept(body, RULES.get, now)
    for row in caught.value.complaints:
        assert row.vi
        assert row.en
    assert caught.value.complaints
    return caught.value


def complaints(body: dict[str, Any], now: datetime = NOW) -> set[tuple[str, str]]:
    return {(row.field, row.code) for row in refusal(body, now).complaints}


def put(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *way, last = path.split("/")
    place: Any = body
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return body


@pytest.mark.parametrize("code", sorted(DOCUMENTS))
def test_every_procedures_example_is_accepted_as_it_is(code: str) -> None:
    submission, document = rules.accept(example(code), RULES.get, NOW)
    assert submission.procedure_code == code
    assert document["version"] == 1


@pytest.mark.parametrize("code", sorted(DOCUMENTS))
def test_no_form_fits_another_procedure(code: str) -> None:
    for other in DOCUMENTS.keys() - {code}:
        assert RULES[other].about_subject(example(code)["subject"], NOW)


def test_an_unknown_procedure_is_named_as_such() -> None:
    assert refusal(put(example(), "procedure_code", "9.999999")).code == "unknown-procedure"


def test_a_procedure_not_yet_valid_or_closed_takes_nothing() -> None:
    assert refusal(example(), datetime(2025, 6, 30, 12, tzinfo=VIETNAM)).code == "procedure-not-yet-valid"
    closed = {"1.001193": ProcedureRules({**DOCUMENTS["1.001193"], "valid_to": "2025-08-31"})}
    rules.accept(example(), closed.get, datetime(2025, 8, 31, 16, 59, tzinfo=UTC))
    with pytest.raises(Complaints) as caught:
        rules.accept(example(), closed.get, datetime(2025, 8, 31, 17, 0, tzinfo=UTC))
    assert caught.value.code == "procedure-closed"


def catalogue(*versions: dict[str, Any]) -> ProcedureCatalogue:
    found = ProcedureCatalogue()
    for version, changes in enumerate(versions, 1):
        found.keep({**DOCUMENTS["1.001193"], "version": version, **changes})
    return found


def test_a_procedure_closed_by_a_version_with_a_last_day_is_not_opened_again_by_the_one_before() -> None:
    found = catalogue({}, {"valid_to": "2025-08-31"}).find("1.001193", date(2025, 9, 1))
    assert found is not None
    assert found.version == 2


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("channel", "fax", ("channel", "not-one-of")),
        ("receiving_agency", "h44 xxx", ("receiving_agency", "wrong-form")),
        ("copies", 0, ("copies", "out-of-range")),
        ("copies", 1001, ("copies", "out-of-range")),
        ("copies", True, ("copies", "wrong-type")),
        ("copies", "3", ("copies", "wrong-type")),
        ("pages", 1.5, ("pages", "wrong-type")),
        ("colour", "red", ("colour", "unknown-field")),
        ("applicant/full_name", "", ("applicant/full_name", "too-short")),
        ("applicant/full_name", "12345", ("applicant/full_name", "wrong-form")),
        ("applicant/full_name", 7, ("applicant/full_name", "wrong-type")),
        ("applicant/full_name", "Lê\u0000Mẫu", ("applicant/full_name", "control-characters")),
        ("applicant/full_name", "Lê\u202eMẫu", ("applicant/full_name", "control-characters")),
        ("applicant/full_name", "Lê\ud800", ("applicant/full_name", "control-characters")),
        ("applicant/personal_id", "00019600010", ("applicant/personal_id", "wrong-number-shape")),
        ("applicant/personal_id", "0001960001011", ("applicant/personal_id", "wrong-number-shape")),
        ("applicant/personal_id", "٠٠٠١٩٦٠٠٠١٠١", ("applicant/personal_id", "wrong-number-shape")),
        ("applicant/birth_date", "2025-02-30", ("applicant/birth_date", "impossible-date")),
        ("applicant/birth_date", "20250101", ("applicant/birth_date", "impossible-date")),
        ("applicant/birth_date", "1890-01-01", ("applicant/birth_date", "date-too-old")),
        ("applicant/birth_date", "2025-08-26", ("applicant/birth_date", "date-in-future")),
        ("applicant/phone", "12345", ("applicant/phone", "wrong-phone")),
        ("applicant/phone", "+1 202 555 0100", ("applicant/phone", "wrong-phone")),
        ("applicant/email", "a@b", ("applicant/email", "wrong-email")),
        ("applicant/email", "a@example.org\nBcc: x@example.org", ("applicant/email", "wrong-email")),
        ("applicant/identity/method", "guess", ("applicant/identity/method", "not-one-of")),
        ("components", [], ("components", "missing-component")),
        ("components/0/code", "nothing_known", ("components/0/code", "unknown-component")),
        ("components/0/code", "birth_notification", ("components/1/code", "duplicate-component")),
        ("components/0/kind", "photo", ("components/0/kind", "not-one-of")),
        ("components/0/sha256", "AB" * 32, ("components/0/sha256", "wrong-form")),
        ("components/0/digitised", "yes", ("components/0/digitised", "wrong-type")),
        ("assisted_by/kind", "neighbour", ("assisted_by/kind", "not-one-of")),
        ("assisted_by/ref", "0900000001", ("assisted_by/ref", "personal-data")),
        ("assisted_by/ref", "Nguyễn Văn Mẫu", ("assisted_by/ref", "wrong-form")),
        ("channel", "post", ("assisted_by/kind", "assistance-not-for-channel")),
        ("subject", [], ("subject", "wrong-type")),
        ("subject", {}, ("subject/child", "missing")),
        ("subject/child/gender", "x", ("subject/child/gender", "not-one-of")),
        ("subject/child/full_name", "A", ("subject/child/full_name", "too-short")),
        ("subject/child/full_name", "A" * 121, ("subject/child/full_name", "too-long")),
        ("subject/child/nickname", "Bi", ("subject/child/nickname", "unknown-field")),
        ("subject/child/birth_date", "2025-13-01", ("subject/child/birth_date", "impossible-date")),
        ("subject/child/birth_date", "2025-08-26", ("subject/child/birth_date", "date-in-future")),
        ("subject/child/birth_date", "1850-08-26", ("subject/child/birth_date", "date-too-old")),
        ("subject/mother/birth_date", "2025-07-01", ("subject/child/birth_date", "dates-out-of-order")),
        ("subject/mother/personal_id", "123", ("subject/mother/personal_id", "wrong-number-shape")),
        ("subject/mother/personal_id", 123, ("subject/mother/personal_id", "wrong-type")),
    ],
)
def test_what_is_wrong_is_said_where_it_is(path: str, value: Any, expected: tuple[str, str]) -> None:
    assert expected in complaints(put(example(), path, value))


@pytest.mark.parametrize(
    "name", ["procedure_code", "receiving_agency", "channel", "applicant", "subject", "components"]
)
def test_what_is_missing_is_named(name: str) -> None:
    body = example()
    del body[name]
    assert (name, "missing") in complaints(body)


def test_a_component_is_taken_only_in_an_allowed_form() -> None:
    body = put(example("2.000815"), "components/0/kind", "copy")
    assert complaints(body) == {("components/0/kind", "component-kind-not-allowed")}


def test_a_missing_component_is_named_in_both_languages() -> None:
    row = refusal(put(example("2.000815"), "components", [])).complaints[0]
    assert "Bản chính giấy tờ" in row.vi
    assert "original_document" in row.en


def test_days_inside_lists_are_checked_as_well() -> None:
    body = example("1.004873")
    body["subject"]["residence_periods"][0] |= {"from": "2020-01-01", "to": "2019-01-01"}
    body["subject"]["residence_periods"][1]["from"] = "2027-01-01"
    assert complaints(body) == {
        ("subject/residence_periods/0/to", "dates-out-of-order"),
        ("subject/residence_periods/1/from", "date-in-future"),
    }


def test_a_planned_day_may_lie_ahead() -> None:
    rules.accept(put(example("1.013225"), "subject/builds_from", "2026-03-01"), RULES.get, NOW)


def test_everything_wrong_is_said_at_once() -> None:
    body = put(put(put(example(), "channel", "fax"), "subject/child/gender", "x"), "applicant/personal_id", "1")
    assert complaints(body) >= {
        ("channel", "not-one-of"),
        ("applicant/personal_id", "wrong-number-shape"),
        ("subject/child/gender", "not-one-of"),
    }


def test_a_complaint_uses_the_forms_own_words() -> None:
    row = refusal(put(example(), "subject/child/gender", "x")).complaints[0]
    assert row.vi.startswith("Giới tính")


def test_nothing_that_was_sent_is_repeated() -> None:
    secret = "Bí Mật 000196000999"
    for path in ("channel", "applicant/personal_id", "applicant/email", "assisted_by/ref", "subject/child/gender"):
        assert secret not in orjson.dumps(refusal(put(example(), path, secret)).complaints).decode()
    body = put(example(), f"subject/{secret}", 1)
    body[secret] = {secret: secret}
    answer = orjson.dumps(refusal(body).complaints).decode()
    assert "Mật" not in answer
    assert "000196000999" not in answer


def test_text_is_stored_in_one_form() -> None:
    body = put(example(), "applicant/full_name", unicodedata.normalize("NFD", "  Trần\tThị\u00a0 Mẫu\n"))
    submission, _ = rules.accept(body, RULES.get, NOW)
    assert submission.applicant.full_name == "Trần Thị Mẫu"
    body = put(example(), "subject/child/full_name", unicodedata.normalize("NFD", "Nguyễn Minh\r\nMẫu"))
    submission, _ = rules.accept(body, RULES.get, NOW)
    assert submission.subject["child"]["full_name"] == "Nguyễn Minh Mẫu"


@pytest.mark.parametrize("name", ["H'Hen Niê", "K’ Brơi", "Mẫu", "Lò Thị Ế", "O'Brien-Nguyễn", "Đỗ A"])
def test_names_of_all_peoples_are_taken(name: str) -> None:
    rules.accept(put(example(), "applicant/full_name", name), RULES.get, NOW)


@pytest.mark.parametrize(
    "written", ["0912345678", "+84 912 345 678", "84912345678", "0084912345678", "0912.345.678", "(0912) 345-678"]
)
def test_a_phone_number_is_kept_in_its_domestic_form(written: str) -> None:
    submission, _ = rules.accept(put(example(), "applicant/phone", written), RULES.get, NOW)
    assert submission.applicant.phone == "0912345678"


def test_a_body_nested_without_end_is_refused_quickly() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    assert any(code == "too-deep" for _, code in complaints(put(example(), "subject/child", deep)))


def test_a_body_of_countless_values_is_refused_quickly() -> None:
    assert ("subject", "too-many") in complaints(put(example(), "subject/child", list(range(100_000))))
    many = {f"field_{number}": number for number in range(1_500)}
    assert len(refusal(put(example(), "subject", many)).complaints) <= 20


def test_check_takes_a_plain_document() -> None:
    submission, document = rules.accept(example(), RULES.get, NOW)
    assert rules.check(submission, document, NOW) == []
    late = NOW - timedelta(days=400)
    assert [row.code for row in rules.check(submission, document, late)][:1] == ["procedure-not-yet-valid"]


def test_a_supplement_and_a_withdrawal_have_their_shapes() -> None:
    part = {"code": "birth_notification", "kind": "original"}
    assert rules.read_supplement({"components": [part], "note": "bổ sung"}).components[0].digitised is False
    assert rules.read_withdrawal({"reason": "Đổi ý"}).reason == "Đổi ý"
    wrong: list[tuple[Callable[[dict[str, Any]], Any], dict[str, Any], str]] = [
        (rules.read_supplement, {"components": []}, "too-few"),
        (rules.read_supplement, {"components": [part, part]}, "duplicate-component"),
        (rules.read_supplement, {"components": [part], "note": "a\u0000"}, "control-characters"),
        (rules.read_withdrawal, {"reason": " \n "}, "too-short"),
        (rules.read_withdrawal, {}, "missing"),
    ]
    for reader, body, code in wrong:
        with pytest.raises(Complaints) as caught:
            reader(body)
        assert code in {row.code for row in caught.value.complaints}


# ---- whatever comes --------------------------------------------------------------------------------------------------

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


def places(value: Any, way: tuple[str, ...] = ()) -> list[str]:
    found = ["/".join(way)] if way else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*way, str(key)))
    return found


def answer_or_refusal(body: dict[str, Any]) -> None:
    rows: tuple[Complaint, ...] | None = None
    try:
        submission, _ = rules.accept(body, RULES.get, NOW)
        json.dumps(submission.model_dump(mode="json"))
    except Complaints as refused:
        rows = refused.complaints
    if rows is not None:
        assert 1 <= len(rows) <= 20
        assert len(orjson.dumps(rows)) < 20_000


@given(st.dictionaries(st.sampled_from([*example(), "x"]), anything))
def test_every_body_is_accepted_or_refused(body: dict[str, Any]) -> None:
    answer_or_refusal(body)


@given(st.data())
def test_every_changed_field_is_accepted_or_refused(data: st.DataObject) -> None:
    body = example(data.draw(st.sampled_from(sorted(DOCUMENTS))))
    answer_or_refusal(put(body, data.draw(st.sampled_from(places(body))), data.draw(anything)))


@given(st.dates())
def test_every_day_is_judged(day: Any) -> None:
    body = put(example(), "subject/child/birth_date", day.isoformat())
    body = put(put(body, "subject/mother/birth_date", "1990-01-01"), "subject/father/birth_date", "1990-01-01")
    if datetime(1990, 1, 1, tzinfo=UTC).date() <= day <= NOW.date():
        rules.accept(body, RULES.get, NOW)
    else:
        assert complaints(body)
