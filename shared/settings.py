"""Settings: environment variables named HOSO_*, read once, in `main`. Each layer adds what it needs.

`ServiceSettings` is a process with an HTTP application and a database; `DeliverySettings` adds the broker; each service
adds its own in `services/<name>/settings.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """An HTTP application with a database. `office0` is an ISO date-time with zone, `wall0` seconds since 1970."""

    model_config = SettingsConfigDict(env_prefix="HOSO_", extra="ignore")

    service: str
    """intake, workflow, notify or idlookup: also the Kafka consumer group's literal name."""
    database: SecretStr
    """PostgreSQL DSN of this service's own database, as this service's own role."""
    pool_size: int = 6
    host: str = "127.0.0.1"
    port: int = 8000
    tokens: SecretStr
    """JSON object {role: bearer token}."""
    office0: datetime | None = None
    wall0: float | None = None
    speed: float = 1.0
    refresh_s: float = 2.0
    """Wall seconds between two refreshes of the gauges."""
    log_level: str = "INFO"
    drain_s: float = 5.0
    """Wall seconds from "not ready" to the closed socket at a stop: longer than a load balancer needs to notice."""

    fault: str = ""
    """Tests only: where this process ends itself (`shared.fault_points`)."""
    fault_file: str = ""


class DeliverySettings(ServiceSettings):
    """A service that publishes and consumes events."""

    kafka: str
    """HOST:PORT[,HOST:PORT…]"""
    kafka_flavour: Literal["apache", "tansu"] = "apache"
    """tansu (embedded, demo only) knows no idempotent producer and answers long polls late."""
    targets: dict[str, float] = {}
    """Changed stage targets, JSON {stage: seconds at speed 1}."""
