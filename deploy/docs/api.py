"""The OpenAPI documents of the services as files: `docs/api/<service>.json`."""

from __future__ import annotations

import json

from deploy.docs.services import SERVICES, describe


def documents() -> dict[str, str]:
    """Service -> its OpenAPI document as text."""
    return {
        name: json.dumps(describe(name).app.openapi(), ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        for name in SERVICES
    }
