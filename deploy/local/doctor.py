"""The checks of `hoso doctor`: what hoso needs on a machine, one finding per check."""

from __future__ import annotations

import asyncio
import fcntl
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from deploy.local import ports
from deploy.local.broker import answers, find_program
from deploy.local.databases import read_settings
from deploy.local.environment import ROOT
from deploy.local.findings import Finding, Level
from deploy.local.kafka_durability import describe, judge
from deploy.local.postgres import Postgres
from deploy.local.postgres_account import choose
from deploy.local.stack import EMBEDDED
from deploy.local.trouble import Trouble

DURABLE = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_apply", "remote_write", "local"),
}
"""With other values a power cut may lose a submission that was already answered with 201."""
RESTORABLE = ("replica", "logical")
"""Values of `wal_level` that allow a standby and a restore to a point in time; `minimal` allows neither."""
CHECKED_SETTINGS = [*DURABLE, "wal_level"]
NEEDED_MB, COMFORTABLE_MB = 300, 2_000


def examine(data: Path, port_base: int, broker: str, postgres: str) -> Iterator[Finding]:
    """Yield the findings one by one; some need a second or two."""
    yield _python()
    yield _packages()
    yield _folder(data)
    yield _disk(data)
    yield _ports(data, port_base, broker, postgres)
    yield from _postgres(data, postgres)
    yield from _broker(broker)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - a user may start it with any Python
        return Finding("wrong", f"Python {version}: cần 3.11 trở lên.", f"Python {version}: 3.11 or later is needed.")
    if sys.platform != "linux":
        return Finding(
            "note",
            f"Python {version} trên {sys.platform}: chỉ Linux được kiểm thử.",
            f"Python {version} on {sys.platform}: only Linux is tested.",
        )
    return Finding("ok", f"Python {version}.", f"Python {version}.")


def _packages() -> Finding:
    """Compare the installed packages with the lock, which may name several versions of one package, by platform."""
    locked: dict[str, list[str]] = {}
    needed: set[str] = set()
    for line in (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?==(\S+) *(;)?", line):
            name, version, conditional = found.groups()
            locked.setdefault(name, []).append(version)
            if not conditional:
                needed.add(name)
    wrong = []
    for name, versions in locked.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in needed:
                wrong.append(f"{name} (-)")
            continue
        if installed not in versions:
            wrong.append(f"{name} ({installed} ≠ {', '.join(versions)})")
    if wrong:
        listed = ", ".join(wrong[:8]) + ("…" if len(wrong) > 8 else "")
        return Finding(
            "wrong",
            f"Gói thiếu hoặc khác phiên bản: {listed}. Hãy chạy `make` lại.",
            f"Packages are missing or have another version: {listed}. Run `make` again.",
        )
    return Finding("ok", "Các gói đúng như tệp khoá.", "The installed packages match the lock file.")


def _folder(data: Path) -> Finding:
    folder = data
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(
            "wrong", f"Không ghi được vào {folder}: {error.strerror}.", f"Cannot write to {folder}: {error.strerror}."
        )
    return Finding("ok", f"Thư mục dữ liệu: {data}.", f"Data folder: {data}.")


def _disk(data: Path) -> Finding:
    folder = data
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free // 1_000_000
    level: Level = "wrong" if free < NEEDED_MB else "note" if free < COMFORTABLE_MB else "ok"
    return Finding(level, f"Đĩa còn {free:,} MB ở {folder}.", f"{free:,} MB of disk are free at {folder}.")


def _ports(data: Path, base: int, broker: str, postgres: str) -> Finding:
    needed = {name: base + offset for name, offset in ports.OFFSETS.items()}
    if broker != EMBEDDED:
        del needed["broker"]
    if postgres != EMBEDDED:
        del needed["postgres"]
    if _is_running(data):
        return Finding("ok", "hoso đang chạy với dữ liệu này.", "hoso is running on these data now.")
    taken = {name: port for name, port in needed.items() if not ports.is_free(port)}
    if taken:
        listed = ", ".join(f"{port} ({name})" for name, port in taken.items())
        return Finding(
            "wrong",
            f"Cổng đang bị chiếm: {listed}. Hãy dừng chương trình đó hoặc dùng --port-base.",
            f"Ports taken: {listed}. Stop that program, or use --port-base.",
        )
    return Finding("ok", f"Các cổng {base + 1}-{base + 8} còn trống.", f"Ports {base + 1} to {base + 8} are free.")


def _is_running(data: Path) -> bool:
    """Return whether a stack holds the folder's lock."""
    try:
        with (data / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _postgres(data: Path, postgres: str) -> Iterator[Finding]:
    try:
        if postgres != EMBEDDED:
            settings, source = read_settings(postgres, CHECKED_SETTINGS), "--postgres"
        elif (data / "postgres" / "PG_VERSION").is_file():
            settings, source = _settings_at_rest(data), str(data / "postgres")
        else:
            settings, source = _settings_of_a_trial(), "thử khởi động / a trial start"
    except Trouble as trouble:
        yield Finding("wrong", trouble.vi, trouble.en)
        return
    except Exception as error:  # noqa: BLE001 - any error of an unknown server is a finding
        yield Finding("wrong", f"PostgreSQL không trả lời: {error}", f"PostgreSQL does not answer: {error}")
        return
    for name, good in DURABLE.items():
        value = settings.get(name, "?")
        if value in good:
            yield Finding("ok", f"PostgreSQL ({source}): {name} = {value}.", f"{name} is {value}.")
        else:
            yield Finding(
                "wrong",
                f"PostgreSQL ({source}): {name} = {value}: mất điện có thể làm mất hồ sơ. Hãy đặt lại {name} = on.",
                f"{name} is {value}: a power cut may lose dossiers. Set {name} = on.",
            )
    if (value := settings.get("wal_level", "?")) in RESTORABLE:
        yield Finding("ok", f"PostgreSQL ({source}): wal_level = {value}.", f"wal_level is {value}.")
    else:
        yield Finding(
            "note",
            f"PostgreSQL ({source}): wal_level = {value}: không có máy dự phòng, không khôi phục theo thời điểm được.",
            f"wal_level is {value}: a standby or a restore to a point in time is not possible.",
        )


def _settings_at_rest(data: Path) -> dict[str, str]:
    """Read the settings from the data folder's files; the server may run or not."""
    account = choose(data)
    settings = {}
    for name in CHECKED_SETTINGS:
        done = subprocess.run(
            account.command("postgres", "-D", str(account.data.resolve()), "-C", name),
            capture_output=True,
            text=True,
            cwd="/",
            user=account.user[0] if account.user else None,
            group=account.user[1] if account.user else None,
            extra_groups=[] if account.user else None,
            timeout=20,
            check=False,
        )
        settings[name] = done.stdout.strip() or done.stderr.strip()[-200:]
    return settings


def _settings_of_a_trial() -> dict[str, str]:
    """Read the settings of a server started in a temporary folder. Also shows that PostgreSQL can run here."""
    with tempfile.TemporaryDirectory(prefix="hoso-doctor-") as folder:
        server = Postgres(Path(folder), ports.free_port())
        try:
            server.start()
            return read_settings(server.dsn(), CHECKED_SETTINGS)
        finally:
            server.destroy()


def _broker(broker: str) -> Iterator[Finding]:
    if broker == EMBEDDED:
        try:
            find_program()
        except Trouble as trouble:
            yield Finding("wrong", trouble.vi, trouble.en)
            return
        yield Finding(
            "note",
            "Broker: nhúng, chỉ để chạy thử; giữ trong bộ nhớ. Khi dùng thật: --broker HOST:PORT.",
            "Broker: embedded, for demos only; it keeps everything in memory. For production: --broker HOST:PORT.",
        )
        return
    answering = [server for server in broker.split(",") if _answers(server)]
    if not answering:
        yield Finding("wrong", f"Không có Kafka nào trả lời ở {broker}.", f"No Kafka answers at {broker}.")
        return
    yield Finding("ok", f"Kafka trả lời ở {', '.join(answering)}.", f"Kafka answers at {', '.join(answering)}.")
    try:
        yield from judge(asyncio.run(describe(",".join(answering))))
    except Exception as error:  # noqa: BLE001 - any error of an unknown broker is a finding
        cause = type(error).__name__
        yield Finding(
            "wrong", f"Không hỏi được thiết lập của Kafka ({cause}).", f"Kafka's settings cannot be read ({cause})."
        )


def _answers(server: str) -> bool:
    host, _, port = server.rpartition(":")
    return bool(host) and port.isdigit() and answers(host, int(port), 3.0)
