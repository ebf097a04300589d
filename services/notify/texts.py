"""The words of a notice: Vietnamese with English beside, from `templates/`. They name code and status and no person."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import BaseLoader, DictLoader, StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.clock import VIETNAM

FILES = ("sms.txt.j2", "email_subject.txt.j2", "email.txt.j2", "call_list.txt.j2", "call_list.html.j2")


@dataclass(frozen=True, slots=True)
class NoticeText:
    """All that a text may know of a notice."""

    kind: str
    cause: str
    dossier_code: str | None
    national_status: int
    result_due_at: datetime | None = None


class Texts:
    """Every template compiled once. Raises at start when one is broken."""

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
        said = tomllib.loads((folder / "sentences.toml").read_text(encoding="utf-8"))
        self._sentences = {
            (group, name): (self._env.from_string(pair["vi"]), self._env.from_string(pair["en"]))
            for group in ("kind", "status")
            for name, pair in said[group].items()
        }
        self._files = {name: self._env.get_template(name) for name in FILES}

    @property
    def kinds(self) -> list[str]:
        """The kinds and causes that have words of their own."""
        return [name for group, name in self._sentences if group == "kind"]

    def sentence(self, about: NoticeText) -> tuple[str, str]:
        """(Vietnamese, English): by the notice's kind, else by its cause, else by the national status."""
        pair = self._find(about)
        due = about.result_due_at
        known = {
            "due": due.astimezone(VIETNAM).strftime("%d/%m/%Y") if due else None,
            "due_time": due.astimezone(VIETNAM).strftime("%H:%M") if due else None,
        }
        return pair[0].render(known).strip(), pair[1].render(known).strip()

    def _find(self, about: NoticeText) -> tuple[Template, Template]:
        for key in (("kind", about.kind), ("kind", about.cause), ("status", str(about.national_status))):
            if key in self._sentences:
                return self._sentences[key]
        return self._sentences["status", "other"]

    def short(self, about: NoticeText) -> str:
        """For SMS and Zalo."""
        return self._render("sms.txt.j2", about)

    def mail(self, about: NoticeText) -> tuple[str, str]:
        """(subject, body)"""
        return self._render("email_subject.txt.j2", about), self._render("email.txt.j2", about) + "\n"

    def _render(self, name: str, about: NoticeText) -> str:
        vi, en = self.sentence(about)
        return self._files[name].render(code=about.dossier_code, vi=vi, en=en).strip()

    def call_list(self, form: str, areas: Sequence[dict[str, Any]], *, agency: str | None, at: datetime) -> str:
        """The printed list. `form` is text or html; each area has `name` and `calls`."""
        name = "call_list.html.j2" if form == "html" else "call_list.txt.j2"
        return self._files[name].render(
            areas=areas, agency=agency, at=at.astimezone(VIETNAM).strftime("%H:%M %d/%m/%Y")
        )
