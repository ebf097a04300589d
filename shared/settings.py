"""What a process is told from outside: environment variables named HOSO_*, read once, in main."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every service's settings. Times: `office0` is an ISO date-time with zone, `wall0` seconds since 1970."""

    model_config = SettingsConfigDict(env_prefix="HOSO_", extra="ignore")

    service: str
    """intake, workflow, notify or idlookup: also the Kafka consumer group's literal name."""
    database: SecretStr
    """PostgreSQL DSN of this service's own database, as this service's own role."""
    kafka: str
    """HOST:PORT[,HOST:PORT…]"""
    kafka_flavour: Literal["apache", "tansu"] = "apache"
    """tansu (embedded, demo only) knows no idempotent producer and answers long polls late."""
    host: str = "127.0.0.1"
    port: int = 8000
    seal_keys: SecretStr
    """`id:base64-of-32-bytes[,id:base64…]`; the first encrypts, all decrypt."""
    secret: SecretStr
    """Key for tracking secrets."""
    tokens: SecretStr
    """JSON object {role: bearer token}."""
    office0: datetime | None = None
    wall0: float | None = None
    speed: float = 1.0
    targets: dict[str, float] = {}
    """Changed stage targets, JSON {stage: seconds at speed 1}."""
    refresh_s: float = 2.0
    """Wall seconds between two looks at what the gauges show."""
    log_level: str = "INFO"
    pool_size: int = 6
    drain_s: float = 5.0
    """Wall seconds between "not ready" and the closed door at a stop: longer than a load balancer needs to notice."""

    fault: str = ""
    """Tests only: where this process is to die (`shared.fault_points`)."""
    fault_file: str = ""

    registry_url: str = ""
    """idlookup: where the population registry (or its simulator) answers."""
    sms_url: str = ""
    """notify: the SMS/Zalo HTTP gateway; empty means that channel is not there."""
    smtp: str = ""
    """notify: HOST:PORT of the mail server; empty means that channel is not there."""
