"""Builds the environment of each process: the HOSO_* settings from the stack's secrets, clock and addresses."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from deploy.local.keys import Keys
from shared.clock import OfficeClock
from shared.http.access import ROLES

ROOT = Path(__file__).resolve().parents[2]
"""The project's root folder: it holds services, shared and deploy."""


@dataclass
class Environment:
    """What all processes share. `flavour`: kind of broker (apache, tansu); `urls` by process; `extra`: more HOSO_*."""

    keys: Keys
    clock: OfficeClock
    kafka: str
    flavour: str
    urls: dict[str, str]
    extra: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def tokens(self) -> dict[str, str]:
        """One bearer token per role, made once per data folder."""
        return {role: self.keys.get(f"token:{role}", lambda: secrets.token_urlsafe(24)) for role in ROLES}

    def plain(self) -> dict[str, str]:
        """Return the environment of any of hoso's programs: the caller's without HOSO_*, with UTF-8 for all text."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HOSO_")}
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            "PYTHONUNBUFFERED": "1",
            # glibc's arena per thread costs more memory than it saves time.
            "MALLOC_ARENA_MAX": "2",
        }

    def service(self, name: str, port: int, dsn: str) -> dict[str, str]:
        """Return the whole environment of one service: the caller's own HOSO_* (HOSO_SMTP, HOSO_TARGETS, …) and the
        stack's values, which replace the caller's."""
        known = {
            "HOSO_SERVICE": name,
            "HOSO_DATABASE": dsn,
            "HOSO_KAFKA": self.kafka,
            "HOSO_KAFKA_FLAVOUR": self.flavour,
            "HOSO_HOST": "127.0.0.1",
            "HOSO_PORT": str(port),
            "HOSO_SEAL_KEYS": self.keys.get("seal", lambda: f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}"),
            "HOSO_SECRET": self.keys.get("tracking", lambda: secrets.token_urlsafe(32)),
            "HOSO_TOKENS": json.dumps(self.tokens),
            "HOSO_OFFICE0": self.clock.office0.isoformat(),
            "HOSO_WALL0": repr(self.clock.wall0),
            "HOSO_SPEED": repr(self.clock.speed),
        }
        if name == "idlookup":
            known["HOSO_REGISTRY_URL"] = self.urls["registry"]
        if name == "notify":
            known["HOSO_SMS_URL"] = self.urls["sms"]
        inherited = {name: value for name, value in os.environ.items() if name.startswith("HOSO_")}
        # No load balancer runs here, so a stop does not wait until one has noticed.
        return {"HOSO_DRAIN_S": "0", **inherited, **self.plain(), **known, **self.extra}
