"""The texts of notices, Vietnamese and English, from `templates/`. They name code and status, and no person."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any, NamedTuple

from jinja2 import BaseLoader, DictLoader, StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.clock import VIETNAM

FILES = ("sms.txt.j2", "email_subject.txt.j2", "email.txt.j2", "call_list.txt.j2", "call_list.html.j2")


@dataclass(frozen=True, slots=True)
class NoticeText:
    """All that a text may use of a notice."""

    kind: str
    cause: str
    dossier_code: str | None
    national_status: int
    result_due_at: datetime | None = None


class Sentence(NamedTuple):
    """What a notice says, in both languages."""

    vi: str
    en: str


class MailText(NamedTuple):
    """An e-mail."""

    subject: str
    body: str


class Area(NamedTuple):
    """The calls of one residential area on the printed list; `name` is empty when it is not known."""

    name: str
    calls: Sequence[dict[str, Any]]


class _Templates(NamedTuple):
    vi: Template
    en: Template


class Texts:
    """Every template, compiled once. Raises at the start when one is broken."""

    def __init__(self) -> None:
        folder = resources.files(__package__) / "templates"
        loader: BaseLoader = DictLoader({name: (folder / name).read_text(encoding="utf-8") for name in FILES})
        self._env = ImmutableSandboxedEnvironment(
            loader=loader,
            undefined=StrictUndefined,
            autoescape=lambda name: bool(name and name.endswith(".html.j2")),
            trim_blocks=True,
            lstrip_blocks=True,
        )
        sentences = tomllib.loads((folder / "sentences.toml").read_text(encoding="utf-8"))
        self._sentences = {
            (group, name): _Templates(self._env.from_string(pair["vi"]), self._env.from_string(pair["en"]))
            for group in ("kind", "status")
            for name, pair in sentences[group].items()
        }
        self._files = {name: self._env.get_template(name) for name in FILES}

    @property
    def kinds(self) -> list[str]:
        """The kinds and causes that have a text of their own."""
        return [name for group, name in self._sentences if group == "kind"]

    def sentence(self, text: NoticeText) -> Sentence:
        """The sentence of the notice's kind, else of its cause, else of the national status."""
        templates = self._find(text)
        due_at = text.result_due_at
        values = {
            "due": due_at.astimezone(VIETNAM).strftime("%d/%m/%Y") if due_at else None,
            "due_time": due_at.astimezone(VIETNAM).strftime("%H:%M") if due_at else None,
        }
        return Sentence(templates.vi.render(values).strip(), templates.en.render(values).strip())

    def _find(self, text: NoticeText) -> _Templates:
        for key in (("kind", text.kind), ("kind", text.cause), ("status", str(text.national_status))):
            if key in self._sentences:
                return self._sentences[key]
        return self._sentences["status", "other"]

    def short(self, text: NoticeText) -> str:
        """For SMS and Zalo."""
        return self._render("sms.txt.j2", text)

    def mail(self, text: NoticeText) -> MailText:
        """For e-mail."""
        return MailText(self._render("email_subject.txt.j2", text), self._render("email.txt.j2", text) + "\n")

    def _render(self, name: str, text: NoticeText) -> str:
        vi, en = self.sentence(text)
        return self._files[name].render(code=text.dossier_code, vi=vi, en=en).strip()

    def call_list(self, form: str, areas: Sequence[Area], *, agency: str | None, office_at: datetime) -> str:
        """The printed list. `form`: text or html. `office_at`: the time of printing, in office time."""
        name = "call_list.html.j2" if form == "html" else "call_list.txt.j2"
        return self._files[name].render(
            areas=areas, agency=agency, at=office_at.astimezone(VIETNAM).strftime("%H:%M %d/%m/%Y")
        )
