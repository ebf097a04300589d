"""What hoso needs on a machine, looked at one by one."""

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
from deploy.local.kafka_durability import judge, look
from deploy.local.postgres import Postgres
from deploy.local.postgres_account import choose
from deploy.local.stack import EMBEDDED
from deploy.local.trouble import Trouble

DURABLE = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_apply", "remote_write", "local"),
}
"""Other values may lose, after a power cut, what a citizen was told had been received."""
RESTORABLE = ("replica", "logical")
"""`wal_level`: with `minimal` there is neither a standby nor a restore to a point in time."""
LOOKED_AT = [*DURABLE, "wal_level"]
NEEDED_MB, COMFORTABLE_MB = 300, 2_000


def examine(data: Path, port_base: int, broker: str, postgres: str) -> Iterator[Finding]:
    """One finding after the other; some take a second or two."""
    yield _python()
    yield _packages()
    yield _folder(data)
    yield _disk(data)
    yield _ports(data, port_base, broker, postgres)
    yield from _postgres(data, postgres)
    yield from _broker(broker)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever calls it by hand may use any Python
        return Finding("wrong", f"Python {version}: cần 3.11 trở lên.", f"Python {version}: 3.11 or later is needed.")
    if sys.platform != "linux":
        return Finding(
            "note",
            f"Python {version} trên {sys.platform}: chỉ Linux được kiểm thử.",
            f"Python {version} on {sys.platform}: only Linux is tested.",
        )
    return Finding("ok", f"Python {version}.", f"Python {version}.")


def _packages() -> Finding:
    """Against the lock; it may name two versions of a package, or none, for different machines."""
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
            f"Packages missing or of another version: {listed}. Run `make` again.",
        )
    return Finding("ok", "Các gói đúng như tệp khoá.", "The packages are those of the lock.")


def _folder(data: Path) -> Finding:
    place = data
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Finding(
            "wrong", f"Không ghi được vào {place}: {error.strerror}.", f"{place} cannot be written: {error.strerror}."
        )
    return Finding("ok", f"Thư mục dữ liệu: {data}.", f"Data folder: {data}.")


def _disk(data: Path) -> Finding:
    place = data
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free // 1_000_000
    level: Level = "wrong" if free < NEEDED_MB else "note" if free < COMFORTABLE_MB else "ok"
    return Finding(level, f"Đĩa còn {free:,} MB ở {place}.", f"{free:,} MB of disk are free at {place}.")


def _ports(data: Path, base: int, broker: str, postgres: str) -> Finding:
    own = {name: base + offset for name, offset in ports.OFFSETS.items()}
    if broker != EMBEDDED:
        del own["broker"]
    if postgres != EMBEDDED:
        del own["postgres"]
    if _runs(data):
        return Finding("ok", "hoso đang chạy với dữ liệu này.", "hoso runs on these data now.")
    taken = {name: port for name, port in own.items() if not ports.is_free(port)}
    if taken:
        listed = ", ".join(f"{port} ({name})" for name, port in taken.items())
        return Finding(
            "wrong",
            f"Cổng đang bị chiếm: {listed}. Hãy dừng chương trình đó hoặc dùng --port-base.",
            f"Ports taken: {listed}. Stop that program, or use --port-base.",
        )
    return Finding("ok", f"Các cổng {base + 1}-{base + 8} còn trống.", f"Ports {base + 1} to {base + 8} are free.")


def _runs(data: Path) -> bool:
    """A stack holds the folder's lock."""
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
            found, place = read_settings(postgres, LOOKED_AT), "--postgres"
        elif (data / "postgres" / "PG_VERSION").is_file():
            found, place = _settings_at_rest(data), str(data / "postgres")
        else:
            found, place = _settings_of_a_trial(), "thử khởi động / a trial start"
    except Trouble as trouble:
        yield Finding("wrong", trouble.vi, trouble.en)
        return
    except Exception as error:  # noqa: BLE001 - whatever a stranger's server answers is the finding
        yield Finding("wrong", f"PostgreSQL không trả lời: {error}", f"PostgreSQL does not answer: {error}")
        return
    for name, good in DURABLE.items():
        value = found.get(name, "?")
        if value in good:
            yield Finding("ok", f"PostgreSQL ({place}): {name} = {value}.", f"{name} is {value}.")
        else:
            yield Finding(
                "wrong",
                f"PostgreSQL ({place}): {name} = {value}: mất điện có thể làm mất hồ sơ. Hãy đặt lại {name} = on.",
                f"{name} is {value}: a power cut may lose dossiers. Set {name} = on.",
            )
    if (value := found.get("wal_level", "?")) in RESTORABLE:
        yield Finding("ok", f"PostgreSQL ({place}): wal_level = {value}.", f"wal_level is {value}.")
    else:
        yield Finding(
            "note",
            f"PostgreSQL ({place}): wal_level = {value}: không có máy dự phòng, không khôi phục theo thời điểm được.",
            f"wal_level is {value}: neither a standby nor a restore to a point in time is possible.",
        )


def _settings_at_rest(data: Path) -> dict[str, str]:
    """What the data folder's own files say, whether the server runs or not."""
    account = choose(data)
    found = {}
    for name in LOOKED_AT:
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
        found[name] = done.stdout.strip() or done.stderr.strip()[-200:]
    return found


def _settings_of_a_trial() -> dict[str, str]:
    """A server started in a temporary folder: it also shows that PostgreSQL runs here at all."""
    with tempfile.TemporaryDirectory(prefix="hoso-doctor-") as place:
        server = Postgres(Path(place), ports.free_port())
        try:
            server.start()
            return read_settings(server.dsn(), LOOKED_AT)
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
            "Broker: embedded, for trying out only; it keeps everything in memory. In earnest: --broker HOST:PORT.",
        )
        return
    there = [server for server in broker.split(",") if _answers(server)]
    if not there:
        yield Finding("wrong", f"Không có Kafka nào trả lời ở {broker}.", f"No Kafka answers at {broker}.")
        return
    yield Finding("ok", f"Kafka trả lời ở {', '.join(there)}.", f"Kafka answers at {', '.join(there)}.")
    try:
        yield from judge(asyncio.run(look(",".join(there))))
    except Exception as error:  # noqa: BLE001 - whatever a stranger's broker answers is the finding
        said = type(error).__name__
        yield Finding(
            "wrong", f"Không hỏi được thiết lập của Kafka ({said}).", f"Kafka's settings cannot be asked for ({said})."
        )


def _answers(server: str) -> bool:
    host, _, port = server.rpartition(":")
    return bool(host) and port.isdigit() and answers(host, int(port), 3.0)
