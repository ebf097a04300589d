"""The embedded PostgreSQL keeps what it was given, survives a kill, and gives each service a database of its own."""

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

# As root both ways that root has are tried, else the only one there is.
WAYS: list[Way] = ["unshare", "nobody"] if os.geteuid() == 0 else ["direct"]


@pytest.fixture(scope="module", params=WAYS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    folder = tmp_path_factory.mktemp("kho dữ liệu")
    server = Postgres(folder, ports.free_port(), way=request.param)
    server.start()
    yield server
    server.destroy()
    assert not (folder / "postgres").exists()


async def ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


async def test_text_is_utf8_whatever_the_locale_and_nothing_that_protects_data_is_off(server: Postgres) -> None:
    assert await ask(server.dsn(), "show server_encoding") == "UTF8"
    assert await ask(server.dsn(), "select upper('đơn')") == "ĐƠN"
    for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert await ask(server.dsn(), f"show {setting}") == "on", setting


async def test_it_listens_on_loopback_only_and_asks_for_a_password(server: Postgres) -> None:
    assert await ask(server.dsn(), "show listen_addresses") == "127.0.0.1"
    assert await ask(server.dsn(), "show unix_socket_directories") == ""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(server.dsn(password="wrong"), "select 1")


async def test_a_service_owns_its_database_and_cannot_enter_another_ones(server: Postgres) -> None:
    dsns = server.ensure_service_databases(["intake", "workflow"])
    await ask(dsns["intake"], "create table if not exists mine (it int)")
    assert await ask(dsns["intake"], "select current_user || '/' || current_database()") == "intake/intake"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ask(dsns["intake"].rpartition("/")[0] + "/workflow", "select 1")
    assert server.ensure_service_database("intake") == dsns["intake"]


async def test_data_survive_a_stop_and_a_kill(server: Postgres) -> None:
    dsn = server.ensure_service_database("keeper")
    await ask(dsn, "create table kept (word text)")
    await ask(dsn, "insert into kept values ('before the stop')")
    server.stop()
    assert server.pid is None
    server.start()
    await ask(dsn, "insert into kept values ('before the kill')")
    server.kill()
    assert (server.account.data / "postmaster.pid").exists()
    server.start()
    assert await ask(dsn, "select count(*) from kept") == 2


async def test_a_pid_file_that_names_somebody_elses_process_does_not_prevent_the_start(server: Postgres) -> None:
    server.kill()
    left = server.account.data / "postmaster.pid"
    lines = left.read_text().splitlines()
    # The shared memory of the killed server is gone with its last child; its number now belongs to a stranger.
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        left.write_text("\n".join([str(stranger.pid), *lines[1:6], "0 0", "ready"]) + "\n")
        server.start()
        assert await ask(server.dsn(), "select 1") == 1
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_database_is_copied_from_a_template(server: Postgres) -> None:
    template = server.create_database("template_for_a_test")
    await ask(template, "create table made_once (it int)")
    copy = server.create_database("copy_for_a_test", template="template_for_a_test")
    assert await ask(copy, "select count(*) from made_once") == 0
    server.drop_database("copy_for_a_test")
    server.drop_database("template_for_a_test")


def test_a_port_that_is_taken_is_named_in_both_languages(server: Postgres, tmp_path: Path) -> None:
    with pytest.raises(Trouble) as told:
        Postgres(tmp_path, server.port).start()
    assert f"Cổng {server.port}" in told.value.vi
    assert f"Port {server.port}" in told.value.en


def test_passwords_are_readable_by_their_owner_only(server: Postgres) -> None:
    assert (server.folder / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_first_start_that_broke_off_is_begun_again(tmp_path: Path) -> None:
    server = Postgres(tmp_path, ports.free_port())
    (tmp_path / "postgres.new" / "base").mkdir(parents=True)
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18")
    try:
        server.start()
        assert server.account.way == "nobody" or not (tmp_path / "postgres.new").exists()
    finally:
        server.destroy()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "letter.txt").write_text("keep me")
    with pytest.raises(Trouble):
        Postgres(tmp_path, ports.free_port()).start()
    assert (tmp_path / "postgres" / "letter.txt").read_text() == "keep me"


def test_it_dies_with_whoever_started_it_even_by_kill_9(tmp_path: Path) -> None:
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
    until(lambda: not _lives(pid))
    postgres_account.forget(postgres_account.choose(tmp_path))
    shutil.rmtree(tmp_path, ignore_errors=True)


def _lives(pid: int) -> bool:
    """A process that has ended and that nobody has waited for does not live."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
