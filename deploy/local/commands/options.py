"""The options that several commands share, with help in both languages."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from deploy.local.office_clock import read_time

Data = Annotated[
    Path,
    typer.Option("--data", metavar="DIR", help="Thư mục dữ liệu. / The data folder."),
]
PortBase = Annotated[
    int,
    typer.Option(
        "--port-base",
        min=1024,
        max=65_500,
        metavar="N",
        help="Cổng gốc: intake N+1 … PostgreSQL N+7. / Ports start here: intake N+1 … PostgreSQL N+7.",
    ),
]
Broker = Annotated[
    str,
    typer.Option("--broker", metavar="embedded|HOST:PORT", help="Kafka: nhúng hoặc có sẵn. / Embedded, or your own."),
]
Postgres = Annotated[
    str,
    typer.Option("--postgres", metavar="embedded|DSN", help="PostgreSQL: nhúng hoặc có sẵn. / Embedded, or your own."),
]
Now = Annotated[
    str | None,
    typer.Option(
        "--now",
        metavar="ISO",
        help="Giờ làm việc lúc bắt đầu. / Office time at the start, for example 2026-02-13T08:00+07:00.",
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(
        "--speed", metavar="X", help="Giờ làm việc nhanh gấp mấy lần. / Office seconds per second (default 1)."
    ),
]
DATA = Path(".hoso")


def parse_now(text: str | None) -> datetime | None:
    """Parse an ISO date-time; None stays None. Raises typer.BadParameter when `text` is not one."""
    if text is None:
        return None
    try:
        return read_time(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} không phải là ngày giờ ISO. / is not an ISO date-time such as 2026-02-13T08:00+07:00."
        ) from error


def parse_speed(speed: float | None) -> float | None:
    """Return `speed` unchanged. Raises typer.BadParameter unless 0 < speed <= 100,000."""
    if speed is not None and not 0 < speed <= 100_000:
        raise typer.BadParameter("--speed: 0 < X <= 100000")
    return speed
