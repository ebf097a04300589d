"""Settings: environment variables named HOSO_*, read once, in `main`.

`ServiceSettings` are for a process with an HTTP application and a database; `DeliverySettings` add the broker; each
service adds its own in `services/<name>/settings.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """An HTTP application with a database."""

    model_config = SettingsConfigDict(env_prefix="HOSO_", extra="ignore")

    service: str
    """intake, workflow, notify or idlookup; also the name of the Kafka consumer group."""
    database: SecretStr
    """PostgreSQL DSN of this service's own database, with this service's own role."""
    pool_size: int = 6
    """Database connections at most."""
    host: str = "127.0.0.1"
    port: int = 8000
    tokens: SecretStr
    """JSON object {role: bearer token}."""
    office0: datetime | None = None
    """The office time at `wall0`, ISO 8601 with an offset; without both, office time is wall time."""
    wall0: float | None = None
    """Wall time, in seconds since 1970."""
    speed: float = 1.0
    """Office seconds per wall second."""
    refresh_s: float = 2.0
    """Wall seconds between two refreshes of the gauges."""
    log_level: str = "INFO"
    drain_s: float = 5.0
    """At a stop, wall seconds from the first 503 of `/readyz` to the closed socket, so that a balancer can notice."""

    fault: str = ""
    """Tests only: the point at which this process ends itself (`shared.fault_points`)."""
    fault_file: str = ""
    """Tests only: a file that the process creates when it does so, and that keeps it from doing so again."""


class DeliverySettings(ServiceSettings):
    """A service that publishes and consumes events."""

    kafka: str
    """HOST:PORT[,HOST:PORT…]"""
    kafka_flavour: Literal["apache", "tansu"] = "apache"
    """`tansu` (embedded, demo only) has no idempotent producer and answers long polls late."""
    targets: dict[str, float] = {}
    """Stage targets that differ from the defaults: JSON {stage: seconds at speed 1}."""
