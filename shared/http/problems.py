"""Problems: errors as RFC 9457 problem+json, with a stable code and sentences in Vietnamese and English."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from shared.http.models import HttpModel
from shared.postgres.transient import is_transient
from shared.refusals import RULE, Complaints, Refused

Form = TypeVar("Form", bound=BaseModel)
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class ErrorRow(HttpModel):
    """One defect of what was sent."""

    field: str
    """The place of the defect, parts joined by `/`, e.g. `applicant/birth_date`."""
    code: str
    """Stable; programs may rely on it."""
    vi: str
    """A sentence in Vietnamese."""
    en: str
    """A sentence in English."""


class ProblemDocument(HttpModel):
    """RFC 9457 problem+json. Some problems add fields of their own."""

    model_config = ConfigDict(extra="allow", json_schema_serialization_defaults_required=False)
    type: str = Field(pattern=r"^urn:hoso:problem:[a-z0-9-]+$")
    """`urn:hoso:problem:` and the code."""
    title: str
    """The name of the HTTP status."""
    status: int
    """The HTTP status."""
    code: str
    """Stable; programs may rely on it."""
    detail: str
    """What is wrong, in Vietnamese."""
    detail_en: str
    """What is wrong, in English."""
    errors: list[ErrorRow] = Field(default=[])
    """The single defects of what was sent, at most 20."""


class Problem(Exception):
    """Raised anywhere below a route; `install` answers it.

    `code` is stable. `errors` are rows {field, code, vi, en}, which never quote a value; `more` are further fields.
    """

    def __init__(
        self, status: int, code: str, *, vi: str, en: str, errors: list[dict[str, Any]] | None = None, **more: Any
    ) -> None:
        super().__init__(code)
        self.status, self.code, self.vi, self.en, self.errors, self.more = status, code, vi, en, errors, more

    @classmethod
    def of(cls, refusal: Refused | Complaints) -> Problem:
        """What a rule refused, as HTTP says it: 409 where the present state forbids it, else 422."""
        status = 409 if isinstance(refusal, Refused) and refusal.conflict else 422
        rows = [asdict(row) for row in refusal.complaints] if isinstance(refusal, Complaints) else None
        return cls(status, refusal.code, vi=refusal.vi, en=refusal.en, errors=rows)

    def response(self) -> Response:
        body: dict[str, Any] = {
            "type": f"urn:hoso:problem:{self.code}",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "code": self.code,
            "detail": self.vi,
            "detail_en": self.en,
            **self.more,
        }
        if self.errors:
            body["errors"] = self.errors
        headers = {"Content-Language": "vi"}
        if self.status == 503:
            headers["Retry-After"] = "2"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Response(orjson.dumps(body), self.status, headers, media_type="application/problem+json")


def unavailable() -> Problem:
    return Problem(
        503,
        "unavailable",
        vi="Hệ thống tạm thời không phục vụ được; xin thử lại sau ít giây.",
        en="The service cannot answer right now; try again in a few seconds.",
    )


def not_found(what_vi: str = "Không tìm thấy.", what_en: str = "Not found.", code: str = "not-found") -> Problem:
    return Problem(404, code, vi=what_vi, en=what_en)


def malformed(code: str, vi: str, en: str, errors: list[dict[str, Any]] | None = None) -> Problem:
    return Problem(400, code, vi=vi, en=en, errors=errors)


def bad_cursor() -> Problem:
    return malformed("bad-cursor", "Con trỏ `after` không hợp lệ.", "The cursor `after` is not valid.")


def too_large() -> Problem:
    return Problem(413, "too-large", vi="Nội dung quá 256 KiB.", en="The body is larger than 256 KiB.")


def wrong_encoding() -> Problem:
    return Problem(
        415,
        "wrong-content-encoding",
        vi="Không nhận nội dung nén (Content-Encoding).",
        en="Compressed bodies (Content-Encoding) are not taken.",
    )


def wrong_type() -> Problem:
    return Problem(
        415,
        "wrong-content-type",
        vi="Content-Type phải là application/json.",
        en="Content-Type must be application/json.",
    )


HTTP = {
    404: ("not-found", "Không có địa chỉ này.", "There is no such address."),
    405: ("method-not-allowed", "Địa chỉ này không nhận phương thức đó.", "This address does not take that method."),
}
SENTENCES = {
    "missing": ("còn thiếu", "is missing"),
    "string_too_short": ("quá ngắn hoặc để trống", "is too short or empty"),
    "string_too_long": ("quá dài", "is too long"),
    "greater_than_equal": ("nhỏ hơn mức cho phép", "is below the least allowed"),
    "less_than_equal": ("lớn hơn mức cho phép", "is above the most allowed"),
    "less_than": ("lớn hơn mức cho phép", "is above the most allowed"),
    "extra_forbidden": ("không có trường này", "is no field that is known here"),
    "literal_error": ("không thuộc các giá trị cho phép", "is none of the allowed values"),
    "invalid": ("thiếu hoặc không hợp lệ", "is missing or not valid"),
}
MAX_ROWS = 20


def about(field: str, code: str) -> dict[str, Any]:
    """One row of a problem's `errors`. `code`: pydantic's name of the error."""
    vi, en = SENTENCES.get(code, ("không đúng dạng", "does not have the required form"))
    return {"field": field, "code": code.replace("_", "-"), "vi": f"{field}: {vi}.", "en": f"{field} {en}."}


def rows_of(errors: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pydantic's errors as rows with our sentences; pydantic's own messages may quote what was sent."""
    return [_row(error) for error in errors[:MAX_ROWS]]


def _row(error: Mapping[str, Any]) -> dict[str, Any]:
    field = "/".join(str(part) for part in error["loc"] if part != "body")
    if error["type"] == RULE:
        return {"field": field, "code": RULE, **error["ctx"]}
    return about(field, error["type"])


def read_strictly(
    kind: type[Form],
    body: Mapping[str, Any],
    *,
    vi: str = "Nội dung không hợp lệ.",
    en: str = "The content is not valid.",
) -> Form:
    """A JSON body as `kind`, in pydantic's strict mode: no text for a number, no 1 for true.

    Raises Problem 422 `invalid` with a row for each defect.
    """
    try:
        return kind.model_validate_json(orjson.dumps(body), strict=True)
    except ValidationError as wrong:
        rows = rows_of(wrong.errors(include_input=False, include_url=False))
    raise Problem(422, "invalid", vi=vi, en=en, errors=rows)


def install(app: FastAPI) -> None:
    """Answer every error of a route with a problem, without a stack trace or a value of the request."""

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return Problem.of(error).response()

    async def complaints(_: Request, error: Exception) -> Response:
        assert isinstance(error, Complaints)
        return Problem.of(error).response()

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        rows = error.errors()[:MAX_ROWS]
        # 400 for a wrong header, 422 for a wrong parameter.
        if any(row["type"] == "json_invalid" or row["loc"][0] == "header" for row in rows):
            return malformed(
                "malformed", "Yêu cầu không đúng dạng.", "The request is not of the expected form.", rows_of(rows)
            ).response()
        return Problem(
            422,
            "invalid",
            vi="Có tham số không hợp lệ.",
            en="A parameter is not valid.",
            errors=rows_of(rows),
        ).response()

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code, vi, en = HTTP.get(error.status_code, ("http-error", "Yêu cầu không thực hiện được.", "Not possible."))
        answer = Problem(error.status_code, code, vi=vi, en=en).response()
        answer.headers.update(error.headers or {})
        return answer

    async def unexpected(_: Request, __: Exception) -> Response:
        return Problem(
            500,
            "internal-error",
            vi="Hệ thống gặp lỗi ngoài dự kiến; lỗi đã được ghi lại.",
            en="An unexpected error; it has been logged.",
        ).response()

    async def disconnected(_: Request, __: Exception) -> Response:
        return malformed("interrupted", "Kết nối bị ngắt giữa chừng.", "The connection was interrupted.").response()

    async def database(_: Request, error: Exception) -> Response:
        if is_transient(error):
            return unavailable().response()
        raise error

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(Complaints, complaints)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, disconnected)
    app.add_exception_handler(Exception, unexpected)
    for kind in _database_errors():
        app.add_exception_handler(kind, database)


def _database_errors() -> tuple[type[Exception], ...]:
    import asyncpg

    from shared.postgres.transient import NotReady

    return (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, NotReady)
