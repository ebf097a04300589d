"""`hoso up`: starts the whole stack, prints the addresses, keeps it running, stops it cleanly."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

import typer

from deploy.local.commands import options
from deploy.local.stack import EMBEDDED, OUTSIDE, Stack

AGAIN_AFTER_S = 0.05


class Stopped(KeyboardInterrupt):
    """The user stops the command: Ctrl-C, SIGTERM, or the terminal closes. asyncio passes on a KeyboardInterrupt."""


@contextmanager
def until_stopped() -> Iterator[None]:
    """The first stop signal in the block raises Stopped. Later ones are ignored, so that the clean stop completes.

    Python drops an exception that a signal handler raises inside `__del__` or another callback of the interpreter, and
    calls `sys.unraisablehook` instead. The hook here raises Stopped again a moment later: otherwise the command would
    run on and ignore every further signal.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(_: int, __: FrameType | None) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise Stopped

    def on_unraisable(dropped: Any) -> None:
        if issubclass(dropped.exc_type, Stopped):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_AFTER_S)
        else:
            hook_before(dropped)

    before = {number: signal.signal(number, stop) for number in (*signals, signal.SIGALRM)}
    hook_before, sys.unraisablehook = sys.unraisablehook, on_unraisable
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook_before
        for number, handler in before.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, handler)


def up(
    port_base: options.PortBase = 8000,
    data: options.Data = options.DATA,
    broker: options.Broker = EMBEDDED,
    postgres: options.Postgres = EMBEDDED,
    now: options.Now = None,
    speed: options.Speed = None,
) -> None:
    """Chạy toàn bộ hệ thống cho đến khi nhấn Ctrl-C. / Run the whole stack until Ctrl-C."""
    started = time.monotonic()
    stack = Stack(
        data,
        port_base=port_base,
        broker=broker,
        postgres=postgres,
        now=options.parse_now(now),
        speed=options.parse_speed(speed),
        say=_say,
    )
    try:
        with until_stopped():
            print(f"Đang khởi động… / Starting… ({stack.data / 'logs'})", flush=True)
            stack.start()
            stack.wait_ready()
            _announce(stack, broker, time.monotonic() - started)
            while True:
                time.sleep(3600)
    except Stopped:
        print("\nĐang dừng… / Stopping…", flush=True)
    finally:
        stack.stop()
    print("Đã dừng. / Stopped.")


def _say(text: str) -> None:
    print(f"{datetime.now().astimezone():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def _announce(stack: Stack, broker: str, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"hoso sẵn sàng sau / ready in {seconds:.1f} s", title_justify="left")
    for heading in ("", "Địa chỉ / address", "pid"):
        table.add_column(heading)
    pids = stack.pids
    known = stack.endpoints
    for name in (*stack.services, *OUTSIDE):
        table.add_row(name, known[name], str(pids.get(name, "")))
    kind = "nhúng, chỉ để chạy thử / embedded, demo only" if broker == EMBEDDED else ""
    table.add_row("Kafka", f"{known['kafka']} {kind}".strip(), str(pids.get("broker", "")))
    own = f"127.0.0.1:{stack.postgres.port}" if "postgres" in pids else "--postgres"
    table.add_row("PostgreSQL", own, str(pids.get("postgres", "")))
    console.print(table)
    assert stack.environment is not None
    clock = stack.environment.clock
    print(f"Giờ làm việc / office time: {clock.now():%Y-%m-%d %H:%M} (x{clock.speed:g})")
    print(f"Mã truy cập / tokens, DSN: {stack.data / 'endpoints.json'}")
    print("Ctrl-C để dừng. / Press Ctrl-C to stop.", flush=True)


def register(app: typer.Typer) -> None:
    app.command()(up)


__all__ = ["Stopped", "register", "until_stopped", "up"]
