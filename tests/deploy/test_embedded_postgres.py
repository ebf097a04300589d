"""The embedded PostgreSQL keeps its data over a stop and a kill, and gives each service its own database."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from deploy.local import ports, postgres_account
from deploy.local.postgres import Postgres
from deploy.local.postgres_account import Way
from deploy.local.trouble import Trouble

# Root has two ways to run PostgreSQL, an ordinary user has one.
WAYS: list[Way] = ["unshare", "nobody"] if os.geteuid() == 0 else ["direct"]


@pytest.fixture(scope="module", params=WAYS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    folder = tmp_path_factory.mktemp("kho dữ liệu")
    server = Postgres(folder, ports.free_port(), way=request.param)
    server.start()
    yield server
    server.destroy()
    assert not (folder / "postgres").exists()


async def query(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not true in time"
        time.sleep(0.02)


async def test_text_is_utf8_in_every_locale_and_all_durability_settings_are_on(server: Postgres) -> None:
    assert await query(server.dsn(), "show server_encoding") == "UTF8"
    assert await query(server.dsn(), "select upper('đơn')") == "ĐƠN"
    for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert await query(server.dsn(), f"show {setting}") == "on", setting


async def test_it_listens_on_loopback_only_and_requires_a_password(server: Postgres) -> None:
    assert await query(server.dsn(), "show listen_addresses") == "127.0.0.1"
    assert await query(server.dsn(), "show unix_socket_directories") == ""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await query(server.dsn(password="wrong"), "select 1")


async def test_a_service_owns_its_database_and_cannot_connect_to_another(server: Postgres) -> None:
    dsns = server.ensure_service_databases(["intake", "workflow"])
    await query(dsns["intake"], "create table if not exists mine (it int)")
    assert await query(dsns["intake"], "select current_user || '/' || current_database()") == "intake/intake"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await query(dsns["intake"].rpartition("/")[0] + "/workflow", "select 1")
    assert server.ensure_service_database("intake") == dsns["intake"]


async def test_data_survive_a_stop_and_a_kill(server: Postgres) -> None:
    dsn = server.ensure_service_database("keeper")
    await query(dsn, "create table kept (word text)")
    await query(dsn, "insert into kept values ('before the stop')")
    server.stop()
    assert server.pid is None
    server.start()
    await query(dsn, "insert into kept values ('before the kill')")
    server.kill()
    assert (server.account.data / "postmaster.pid").exists()
    server.start()
    assert await query(dsn, "select count(*) from kept") == 2


async def test_a_stale_pid_file_with_another_programs_pid_does_not_prevent_the_start(server: Postgres) -> None:
    server.kill()
    pid_file = server.account.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    # The shared memory of the killed server is gone with its last child; its pid belongs to another program.
    other = subprocess.Popen(["sleep", "60"])
    try:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:6], "0 0", "ready"]) + "\n")
        server.start()
        assert await query(server.dsn(), "select 1") == 1
    finally:
        other.kill()
        other.wait()


async def test_a_database_is_copied_from_a_template(server: Postgres) -> None:
    template = server.create_database("template_for_a_test")
    await query(template, "create table made_once (it int)")
    copy = server.create_database("copy_for_a_test", template="template_for_a_test")
    assert await query(copy, "select count(*) from made_once") == 0
    server.drop_database("copy_for_a_test")
    server.drop_database("template_for_a_test")


def test_a_taken_port_is_named_in_both_languages(server: Postgres, tmp_path: Path) -> None:
    with pytest.raises(Trouble) as raised:
        Postgres(tmp_path, server.port).start()
    assert f"Cổng {server.port}" in raised.value.vi
    assert f"Port {server.port}" in raised.value.en


def test_passwords_are_readable_by_their_owner_only(server: Postgres) -> None:
    assert (server.folder / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_an_interrupted_first_start_is_repeated(tmp_path: Path) -> None:
    server = Postgres(tmp_path, ports.free_port())
    (tmp_path / "postgres.new" / "base").mkdir(parents=True)
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18")
    try:
        server.start()
        assert server.account.way == "nobody" or not (tmp_path / "postgres.new").exists()
    finally:
        server.destroy()


def test_a_folder_with_other_files_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "letter.txt").write_text("keep me")
    with pytest.raises(Trouble):
        Postgres(tmp_path, ports.free_port()).start()
    assert (tmp_path / "postgres" / "letter.txt").read_text() == "keep me"


def test_it_dies_with_the_process_that_started_it_even_by_sigkill(tmp_path: Path) -> None:
    port = ports.free_port()
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, sys; from pathlib import Path; from deploy.local.postgres import Postgres\n"
            "server = Postgres(Path(sys.argv[1]), int(sys.argv[2])); server.start()\n"
            "print(server.pid, flush=True); signal.pause()",
            str(tmp_path),
            str(port),
        ],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    until(lambda: ports.is_free(port))
    until(lambda: not _is_running(pid))
    postgres_account.forget(postgres_account.choose(tmp_path))
    shutil.rmtree(tmp_path, ignore_errors=True)


def _is_running(pid: int) -> bool:
    """Return whether the process runs. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
