"""Who may submit, and who may act on a dossier later: a role's token, or the citizen's tracking secret."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query, Request

from services.intake.app import IntakeApp
from shared.http.access import allow
from shared.http.problems import Problem, not_found
from shared.privacy.tracking import is_tracking_secret

FILERS = ("counter", "specialist", "centre_director", "system")
REQUESTERS = ("counter", "system")
Secret = Annotated[
    str | None,
    Query(description="The citizen's `tracking_secret`, instead of a token. A wrong one is answered 404."),
]


def caller_or_secret(app: IntakeApp, request: Request, dossier_id: UUID, secret: str | None, *roles: str) -> str:
    """The caller's name: the role of the token, or `citizen:` and the dossier's id for the citizen's secret.

    Raises Problem 401, 403 or 404; a wrong secret is answered as an unknown dossier is.
    """
    if secret is not None:
        if not is_tracking_secret(app.secret_key, dossier_id, secret):
            raise unknown_dossier()
        return f"citizen:{dossier_id}"
    return allow(*roles)(request).name


def unknown_dossier() -> Problem:
    return not_found("Không có hồ sơ này.", "There is no such dossier.", "unknown-dossier")
