"""The fields of a submission, their shapes, and how text is normalised before it is checked.

Nothing here depends on a procedure; `rules` compares a submission with one. A complaint says in both languages what is
wrong and where. It never repeats what was sent, because that may be the name or number of a person.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from shared.refusals import Complaint

MAX_COMPLAINTS = 20
MAX_VALUES = 2_000
MAX_DEPTH = 10
EARLIEST, LATEST = date(1800, 1, 1), date(2200, 12, 31)

UNWANTED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)
"""Control characters, marks that change the reading direction, lone surrogates: a register must not have them."""
ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
SHOWABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
PHONE = re.compile(r"(?:\+84|0084|84|0)([35789][0-9]{8}|2[0-9]{9})")
EMAIL = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
)


SENTENCES: dict[str, tuple[str, str]] = {
    "missing": ("còn thiếu", "is missing"),
    "unknown-field": ("không có trường này", "there is no such field"),
    "wrong-type": ("sai kiểu dữ liệu", "has the wrong type"),
    "wrong-form": ("không đúng dạng", "does not have the required form"),
    "too-short": ("quá ngắn hoặc để trống", "is too short or empty"),
    "too-long": ("quá dài", "is too long"),
    "too-few": ("có quá ít mục", "has too few entries"),
    "too-many": ("có quá nhiều mục", "has too many entries"),
    "not-one-of": ("không thuộc các giá trị cho phép", "is none of the allowed values"),
    "out-of-range": ("ngoài khoảng cho phép", "is out of range"),
    "repeated": ("bị lặp lại", "is repeated"),
    "impossible-date": ("không phải ngày có thật (NĂM-THÁNG-NGÀY)", "is not a real date (YYYY-MM-DD)"),
    "date-in-future": ("là ngày trong tương lai", "is in the future"),
    "date-too-old": ("là ngày quá xa trong quá khứ", "is too far in the past"),
    "dates-out-of-order": ("trước ngày phải có trước nó", "is before a date that must come earlier"),
    "wrong-number-shape": ("phải gồm đúng 12 chữ số", "must be exactly 12 digits"),
    "wrong-phone": ("không phải số điện thoại Việt Nam", "is not a Vietnamese telephone number"),
    "wrong-email": ("không phải địa chỉ thư điện tử", "is not an e-mail address"),
    "personal-data": (
        "không được chứa số cá nhân hay số điện thoại",
        "must not contain a personal or telephone number",
    ),
    "control-characters": ("có ký tự điều khiển không cho phép", "contains control characters"),
    "too-deep": ("lồng nhau quá sâu", "is nested too deeply"),
    "assistance-not-for-channel": ("không đi cùng hình thức nộp này", "does not go with this channel"),
    "unknown-component": ("không thuộc thành phần hồ sơ của thủ tục", "is not a component of this procedure"),
    "component-kind-not-allowed": ("không được nộp ở dạng này", "may not be submitted in this form"),
    "duplicate-component": ("được nêu hai lần", "is listed twice"),
}


def complaint(field: str, code: str, label: str | None = None) -> Complaint:
    vi, en = SENTENCES.get(code, ("không hợp lệ", "is not valid"))
    return Complaint(field, code, f"{label or field}: {vi}.", f"{field} {en}.")


def shown(parts: Iterable[object]) -> str:
    """The path of a value as text that is safe to show: a name that is not a plain identifier becomes `?`."""
    return "/".join(str(p) if isinstance(p, int) or SHOWABLE.fullmatch(str(p)) else "?" for p in parts)


def _complain(code: str) -> PydanticCustomError:
    return PydanticCustomError("complaint", "{code}", {"code": code})


def _shape(pattern: re.Pattern[str], code: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise _complain(code)
        return text

    return AfterValidator(check)


def _real_date(text: str) -> str:
    day = read_date(text)
    if day is None:
        raise _complain("impossible-date")
    return text


def read_date(text: object) -> date | None:
    """The day that `text` means (YYYY-MM-DD, 1800 to 2200), or None."""
    if not isinstance(text, str) or not ISO_DATE.fullmatch(text):
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if EARLIEST <= day <= LATEST else None


def _phone(text: str) -> str:
    """The number in the domestic form: it begins with 0 and has no separators."""
    match = PHONE.fullmatch(re.sub(r"[ .()-]", "", text))
    if not match:
        raise _complain("wrong-phone")
    return "0" + match[1]


def _no_long_number(text: str) -> str:
    if re.search(r"[0-9]{9}", text):
        raise _complain("personal-data")
    return text


def _text(max_length: int, min_length: int = 1) -> StringConstraints:
    return StringConstraints(strict=True, min_length=min_length, max_length=max_length)


Agency = Annotated[str, _text(40), _shape(re.compile(r"[A-Z0-9]+(?:\.[A-Z0-9]+)*"), "wrong-form")]
ComponentCode = Annotated[str, _text(60), _shape(re.compile(r"[a-z0-9][a-z0-9_]{1,59}"), "wrong-form")]
Sha256 = Annotated[str, _text(64), _shape(re.compile(r"[0-9a-f]{64}"), "wrong-form")]
PersonName = Annotated[str, _text(120, 2), _shape(re.compile(r"(?=.*[^\W\d_]).+"), "wrong-form")]
Reference = Annotated[
    str, _text(60), _shape(re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*"), "wrong-form"), AfterValidator(_no_long_number)
]
Count = Annotated[int, Field(strict=True, ge=1, le=1000)]


class FormPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Identity(FormPart):
    """How the applicant's identity was established."""

    method: Literal["vneid_2", "card_seen", "none"]
    """`vneid_2`: a VNeID account of level 2. `card_seen`: an officer has seen the identity card."""


class Applicant(FormPart):
    """Whose dossier it is, whoever filed it."""

    full_name: PersonName
    birth_date: Annotated[str, _text(10), AfterValidator(_real_date)] | None = None
    """YYYY-MM-DD."""
    personal_id: Annotated[str, _text(60), _shape(re.compile(r"[0-9]{12}"), "wrong-number-shape")] | None = None
    """The personal identification number, 12 digits."""
    phone: Annotated[str, _text(30), AfterValidator(_phone)] | None = None
    """A Vietnamese number; it is stored in the domestic form, e.g. 0912345678."""
    email: Annotated[str, _text(254), _shape(EMAIL, "wrong-email")] | None = None
    identity: Identity


class Component(FormPart):
    """One component that is handed in; its content may be uploaded afterwards."""

    code: ComponentCode
    """The component's code in the procedure."""
    kind: Literal["original", "copy", "electronic"]
    digitised: Annotated[bool, Field(strict=True)] = False
    """Whether it was digitised."""
    sha256: Sha256 | None = None
    """SHA-256 in hex; the uploaded content must have it."""


class AssistedBy(FormPart):
    """Who filed for the applicant."""

    kind: Literal["officer", "community_team", "postal_clerk", "relative"]
    ref: Reference
    """An account or an office, never a person's name or number."""


class Submission(FormPart):
    """The body of `POST /v1/dossiers`."""

    procedure_code: Annotated[str, _text(60)]
    receiving_agency: Agency
    """The code of the agency that receives the dossier."""
    support_point: Annotated[str, _text(100)] | None = None
    """The support point at which it was filed."""
    residential_area: Annotated[str, _text(100)] | None = None
    """The applicant's residential area."""
    channel: Literal["direct", "online", "post"]
    """`direct`: at the counter."""
    applicant: Applicant
    subject: dict[str, Any]
    """What the dossier is about, by the procedure's `subject_schema`."""
    components: tuple[Component, ...] = Field(max_length=50)
    copies: Count | None = None
    """The number of copies wanted; the fee depends on it."""
    pages: Count | None = None
    """The number of pages of each copy; the fee depends on it."""
    assisted_by: AssistedBy | None = None
    """Only where somebody filed for the applicant; the applicant stays the applicant."""


class Supplement(FormPart):
    """The body of `POST …/supplement`."""

    components: tuple[Component, ...] = Field(min_length=1, max_length=50)
    note: Annotated[str, _text(2000)] | None = None


class Withdrawal(FormPart):
    """The body of `POST …/withdrawal`."""

    reason: Annotated[str, _text(2000)]


Form = TypeVar("Form", bound=FormPart)


def read(form: type[Form], body: Mapping[str, Any]) -> Form | list[Complaint]:
    """The body as a form, or the complaints about it. The body must have passed `clean`."""
    try:
        return form.model_validate(body)
    except ValidationError as wrong:
        rows = wrong.errors(include_url=False, include_input=False)[:MAX_COMPLAINTS]
        return [complaint(shown(row["loc"]), _code(row["type"], row.get("ctx"))) for row in rows]


KINDS = {
    "missing": "missing",
    "extra_forbidden": "unknown-field",
    "literal_error": "not-one-of",
    "string_too_short": "too-short",
    "string_too_long": "too-long",
    "too_short": "too-few",
    "too_long": "too-many",
    "greater_than_equal": "out-of-range",
    "less_than_equal": "out-of-range",
}


def _code(kind: str, context: dict[str, Any] | None) -> str:
    if kind == "complaint" and context:
        return str(context["code"])
    return KINDS.get(kind, "wrong-type")


def clean(body: Any) -> tuple[Any, list[Complaint]]:
    """The body with its text in NFC and with single spaces, and the complaints about text and size.

    Line breaks and tabs become spaces: an entry in a register is one line.
    """
    complaints: list[Complaint] = []
    return _Cleaner(complaints.append).clean(body, ()), complaints


class _Cleaner:
    def __init__(self, complain: Callable[[Complaint], None]) -> None:
        self._complain = complain
        self._values = 0

    def clean(self, value: Any, path: tuple[object, ...]) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            if self._values == MAX_VALUES + 1:
                self._complain(complaint(shown(path[:1]), "too-many"))
            return None
        if isinstance(value, str):
            return self._text(value, path)
        if not isinstance(value, dict | list):
            return value
        if len(path) >= MAX_DEPTH:
            self._complain(complaint(shown(path[:MAX_DEPTH]), "too-deep"))
            return None
        if isinstance(value, list):
            return [self.clean(item, (*path, index)) for index, item in enumerate(value[: MAX_VALUES + 1])]
        return {key: self.clean(item, (*path, key)) for key, item in value.items()}

    def _text(self, text: str, path: tuple[object, ...]) -> str:
        if UNWANTED.search(text):
            self._complain(complaint(shown(path), "control-characters"))
            return ""
        if not text.isascii():
            text = unicodedata.normalize("NFC", text)
        return " ".join(text.split())
