"""The embedded stack: its processes start, are restarted when they die, and end when the stack stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local import ports
from deploy.local.call import call
from deploy.local.commands.up import Stopped, until_stopped
from deploy.local.office_clock import postpone, read_time, set_clock
from deploy.local.postgres import Postgres
from deploy.local.stack import Stack
from deploy.local.trouble import Trouble
from shared.clock import OfficeClock

STAND_IN = str(Path(__file__).with_name("embedded_stand_in.py"))
NAMES = ["intake", "workflow", "idlookup", "notify", "registry", "sms"]


def make_stack(folder: Path, **options: Any) -> Stack:
    base = options.pop("port_base", None) or ports.free_base()
    commands = {name: [sys.executable, STAND_IN] for name in NAMES[:4]}
    commands |= {name: [sys.executable, STAND_IN, str(base + ports.OFFSETS[name])] for name in NAMES[4:]}
    return Stack(folder, port_base=base, commands=commands, **options)


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition was not true in time"
        time.sleep(0.02)
    return value


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = make_stack(tmp_path_factory.mktemp("dữ liệu"), now=read_time("2026-02-13T08:00+07:00"), speed=600)
    with stack:
        stack.wait_ready()
        yield stack
    assert not (stack.data / "endpoints.json").exists()


def published(stack: Stack) -> dict[str, Any]:
    endpoints: dict[str, Any] = json.loads((stack.data / "endpoints.json").read_text())
    return endpoints


def test_the_endpoints_are_those_of_the_contract_and_private(stack: Stack) -> None:
    base = stack.port_base
    endpoints = published(stack)
    assert (stack.data / "endpoints.json").stat().st_mode & 0o777 == 0o600
    assert [endpoints[name] for name in NAMES[:5]] == [f"http://127.0.0.1:{base + n}" for n in range(1, 6)]
    assert endpoints["kafka"] == f"127.0.0.1:{base + 6}"
    assert set(endpoints["databases"]) == {"intake", "workflow", "idlookup", "notify"}
    assert {*NAMES[:5], "broker", "postgres"} <= set(endpoints["pids"])
    assert all(is_running(pid) for pid in endpoints["pids"].values())
    roles = {"counter", "specialist", "signatory", "records_clerk", "centre_director", "ops", "system"}
    assert set(endpoints["tokens"]) == roles


async def test_each_service_gets_its_own_database_and_the_same_clock(stack: Stack) -> None:
    settings = {name: call(published(stack)[name], "/settings") for name in NAMES[:4]}
    assert {each["HOSO_OFFICE0"] for each in settings.values()} == {"2026-02-13T08:00:00+07:00"}
    assert {float(each["HOSO_SPEED"]) for each in settings.values()} == {600.0}
    assert len({each["HOSO_WALL0"] for each in settings.values()}) == 1
    assert len({each["HOSO_DATABASE"] for each in settings.values()}) == 4
    assert settings["idlookup"]["HOSO_REGISTRY_URL"] == published(stack)["registry"]
    assert settings["intake"]["HOSO_KAFKA_FLAVOUR"] == "tansu"
    connection = await asyncpg.connect(settings["notify"]["HOSO_DATABASE"])
    assert await connection.fetchval("select current_user") == "notify"
    await connection.close()


@pytest.mark.parametrize("name", ["workflow", "registry", "broker", "postgres"])
def test_a_killed_process_is_started_again_and_the_file_has_its_new_pid(stack: Stack, name: str) -> None:
    old = stack.kill(name)
    assert old is not None
    until(lambda: stack.pids.get(name, old) != old)
    until(lambda: published(stack)["pids"][name] == stack.pids[name])
    stack.wait_ready()


def test_a_manual_restart_does_not_count_as_a_death(stack: Stack) -> None:
    old = stack.pids["intake"]
    stack.restart("intake")
    stack.wait_ready()
    assert stack.pids["intake"] != old
    assert stack.supervisor["intake"].deaths == 0


def test_a_process_that_is_taken_down_stays_down_until_it_is_brought_back(stack: Stack) -> None:
    stack.take_down("notify")
    assert "notify" not in stack.pids
    assert "notify" not in published(stack)["pids"]
    stack.kill("workflow")
    until(lambda: stack.supervisor["workflow"].deaths and "workflow" in stack.pids)
    assert "notify" not in stack.pids
    stack.bring_back("notify")
    stack.wait_ready()
    assert "notify" in published(stack)["pids"]


def test_a_second_instance_of_a_service_can_be_added_and_removed(stack: Stack) -> None:
    name = stack.add_instance("workflow")
    assert name == "workflow-2"
    endpoints = published(stack)
    assert call(endpoints["instances"][name], "/settings")["HOSO_SERVICE"] == "workflow"
    assert endpoints["pids"][name] != endpoints["pids"]["workflow"]
    stack.remove_instance(name)
    assert name not in published(stack)["pids"]
    assert published(stack)["instances"] == {}


def test_a_second_stack_on_the_same_folder_is_refused(stack: Stack) -> None:
    with pytest.raises(Trouble, match=str(os.getpid())):
        make_stack(stack.data).start()
    assert published(stack)["pids"]


def test_a_taken_port_is_named_with_its_purpose_and_no_process_remains(tmp_path: Path) -> None:
    base = ports.free_base()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + 3))
        taken.listen()
        with pytest.raises(Trouble) as raised:
            make_stack(tmp_path, port_base=base).start()
    assert str(base + 3) in raised.value.en
    assert "idlookup" in raised.value.vi
    assert all(ports.is_free(base + offset) for offset in ports.OFFSETS.values())


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Trouble, match="--data"):
        make_stack(tmp_path / "file" / "data").start()


def test_a_process_that_never_starts_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    stack = make_stack(tmp_path, env={"HOSO_BROKEN": "1"}, services=["intake"], postgres_settings={"fsync": "off"})
    try:
        stack.start()
        with pytest.raises(Trouble, match="this process never starts"):
            stack.wait_ready(timeout=30)
        assert not (tmp_path / "endpoints.json").exists()
    finally:
        stack.stop()
        stack.postgres.destroy()


def test_an_existing_postgresql_gets_the_databases(tmp_path: Path) -> None:
    existing = Postgres(tmp_path / "existing", ports.free_port())
    existing.start()
    try:
        with make_stack(tmp_path / "ours", services=["notify"], postgres=existing.dsn()) as stack:
            stack.wait_ready()
            assert "postgres" not in stack.pids
            assert f":{existing.port}/notify" in published(stack)["databases"]["notify"]
        with pytest.raises(Trouble, match="--postgres"):
            make_stack(tmp_path / "ours", services=["notify"], postgres=existing.dsn(password="wrong")).start()
    finally:
        existing.destroy()


def test_a_kafka_that_does_not_answer_is_named(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{ports.free_port()}"
    with pytest.raises(Trouble, match=nowhere):
        make_stack(tmp_path, broker=nowhere).start()


def test_the_office_clock_continues_after_a_restart_and_never_runs_backwards(tmp_path: Path) -> None:
    path, start = tmp_path / "office.json", read_time("2026-02-13T08:00+07:00")
    first = set_clock(path, start, 600)
    assert set_clock(path, None, None) == first
    assert set_clock(path, start, 600) == first
    with pytest.raises(Trouble, match="2026-02-12"):
        set_clock(path, start - timedelta(days=1), 600)
    later = set_clock(path, start + timedelta(days=1), 1)
    assert later.office0 == start + timedelta(days=1)
    slower = set_clock(path, None, 2)
    assert slower.speed == 2
    assert abs((slower.now() - later.now()).total_seconds()) < 10


def test_a_postponed_clock_starts_when_the_services_should_be_ready_and_is_stored(tmp_path: Path) -> None:
    path, start = tmp_path / "office.json", read_time("2026-02-13T08:00+07:00")
    started = time.time()
    later = postpone(path, set_clock(path, start, 600), 3.0)
    assert later.office0 == start
    # Twice the time that all else took, plus four seconds.
    assert started + 10.0 <= later.wall(start) <= time.time() + 10.0
    assert later.now() < start
    assert set_clock(path, start, 600) == later


def test_a_punctual_stack_is_ready_before_its_clock_shows_the_start_time(tmp_path: Path) -> None:
    monday = read_time("2025-08-25T07:15+07:00")
    with make_stack(tmp_path / "data", now=monday, speed=3000, punctual=True) as stack:
        stack.wait_ready()
        office = published(stack)["office"]
        assert OfficeClock.of(read_time(office["office0"]), office["wall0"], office["speed"]).now() < monday


def test_without_options_office_time_is_real_time(tmp_path: Path) -> None:
    clock = set_clock(tmp_path / "office.json", None, None)
    assert abs(clock.now().timestamp() - time.time()) < 1
    with pytest.raises(Trouble):
        set_clock(tmp_path / "office.json", read_time("2020-01-01"), None)


UP = """
import sys
from pathlib import Path
from tests.deploy.test_embedded_stack import make_stack
from deploy.local.commands import up as command
command.Stack = lambda data, **options: make_stack(data, **options)
options = {"port_base": int(sys.argv[2]), "data": Path(sys.argv[1])}
command.up(**options, broker="embedded", postgres="embedded", now=None, speed=None)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_leaves_no_process_behind_however_it_ends(tmp_path: Path, how: signal.Signals) -> None:
    base = ports.free_base()
    hoso = subprocess.Popen(
        [sys.executable, "-c", UP, str(tmp_path), str(base)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        until(lambda: (tmp_path / "endpoints.json").exists() or hoso.poll() is not None)
        assert hoso.poll() is None, hoso.stdout.read() if hoso.stdout else ""
        pids = json.loads((tmp_path / "endpoints.json").read_text())["pids"]
        hoso.send_signal(how)
        output, _ = hoso.communicate(timeout=40)
    finally:
        hoso.kill()
        hoso.wait()
    assert hoso.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 0), output
    until(lambda: not [name for name, pid in pids.items() if is_running(pid)])
    if how != signal.SIGKILL:
        assert "Đã dừng" in output.decode()
        assert not (tmp_path / "endpoints.json").exists()
        assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def test_a_stop_signal_that_arrives_inside_a_finalizer_is_not_lost() -> None:
    """Python drops what a signal handler raises inside `__del__`."""

    class Dropped:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def run_until_stopped() -> None:
        deadline = time.monotonic() + 10
        with until_stopped():
            Dropped()
            while time.monotonic() < deadline:
                time.sleep(0.01)

    try:
        with pytest.raises(Stopped):
            run_until_stopped()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
