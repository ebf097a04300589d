"""The embedded PostgreSQL: a real server from a wheel, on loopback TCP. Its data survive restarts."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from deploy.local import ports
from deploy.local.databases import ensure_databases, execute
from deploy.local.keys import Keys
from deploy.local.postgres_account import Account, Way, choose, forget
from deploy.local.processes import end, spawn, tail
from deploy.local.trouble import Trouble

SUPERUSER = "postgres"
START_S = 60.0
"""Includes the recovery after a kill on a slow disk."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "96MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "effective_cache_size": "512MB",
    "min_wal_size": "64MB",
    "checkpoint_timeout": "10min",
    "io_method": "sync",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_min_duration_statement": "2s",
}
"""For an old PC. fsync, synchronous_commit and full_page_writes keep PostgreSQL's default: on. max_wal_size (1 GB) and
wal_compression (off) keep theirs too: a smaller log is slower (docs/performance.md)."""


class Postgres:
    """One server with its data in `folder`/postgres, its passwords in `folder`/secrets.json, its log in `folder`/logs.

    `settings` replace or extend SETTINGS (tests may turn fsync off). All methods block; none needs an event loop.
    """

    def __init__(
        self, folder: Path, port: int, *, settings: dict[str, str] | None = None, way: Way | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.port = port
        self.log = self.folder / "logs" / "postgres.log"
        self.keys = Keys(self.folder / "secrets.json")
        self._settings = {**SETTINGS, **(settings or {})}
        self._way = way
        self._account: Account | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it is not running."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process is not None else None

    @property
    def account(self) -> Account:
        """The account under which the server runs."""
        if self._account is None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._account = choose(self.folder, self._way)
        return self._account

    @property
    def password(self) -> str:
        """The superuser's password."""
        return self.keys.get("postgres:superuser", lambda: secrets.token_urlsafe(24))

    def start(self) -> None:
        """Create the data folder if it is missing, start the server, and wait until it answers (at most START_S).

        Raises Trouble: port taken, wheel missing, data of another version, start failed (with the end of the log).
        """
        if self.pid is not None:
            return
        ports.require_free(self.port, "PostgreSQL")
        if not (self.account.data / "PG_VERSION").is_file():
            self._initialise()
        deadline = time.monotonic() + START_S
        while True:
            self._forget_stale_pid()
            log_size = self.log.stat().st_size if self.log.exists() else 0
            self._process = self._spawn()
            if self._wait_until_it_answers(deadline):
                return
            # The children of a killed server still hold its shared memory for a short time: try again.
            output = tail(self.log, since=log_size)
            again = "shared memory" in output or "lock file" in output
            if not again or time.monotonic() > deadline:
                raise self._start_failed()
            time.sleep(0.1)

    def stop(self, grace: float = 20.0) -> None:
        """Fast shutdown (SIGINT): roll back open transactions, write everything to disk. `grace` in seconds."""
        if self._process is not None:
            end(self._process, signal.SIGINT, grace)

    def kill(self) -> None:
        """Send SIGKILL to the server and wait for its end."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def poll(self) -> int | None:
        """Return the exit status after it has ended, None while it runs, 0 when it was never started."""
        return self._process.poll() if self._process is not None else 0

    def destroy(self) -> None:
        """Stop the server and remove its data."""
        self.stop()
        forget(self.account)

    def dsn(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> str:
        """Return a `postgresql://…` DSN. Default password: the superuser's, or the stored one of a service's role."""
        if password is None:
            password = self.password if user == SUPERUSER else self.role_password(user)
        return f"postgresql://{quote(user)}:{quote(password, safe='')}@127.0.0.1:{self.port}/{quote(database)}"

    def ensure_service_database(self, service: str) -> str:
        """Return the DSN of `service`'s database with its own role. Creates both if they are missing."""
        return self.ensure_service_databases([service])[service]

    def ensure_service_databases(self, services: list[str]) -> dict[str, str]:
        """Do ensure_service_database for several services over one connection. Returns the DSN by service."""
        return ensure_databases(self.dsn(), {name: self.role_password(name) for name in services})

    def create_database(self, name: str, *, template: str = "template1", owner: str = SUPERUSER) -> str:
        """Create a database and return its DSN with role `owner`. No client may be connected to `template`."""
        self.execute(f'create database "{name}" template "{template}" owner "{owner}"')
        return self.dsn(name, owner)

    def drop_database(self, name: str) -> None:
        """Drop the database and disconnect all its clients."""
        self.execute(f'drop database if exists "{name}" with (force)')

    def execute(self, statement: str) -> None:
        """Execute one statement as superuser in the database postgres, outside a transaction."""
        execute(self.dsn(), statement)

    def role_password(self, service: str) -> str:
        """Return the password of a service's role; the first call makes it."""
        return self.keys.get(f"postgres:{service}", lambda: secrets.token_urlsafe(24))

    def _initialise(self) -> None:
        account = self.account
        data = account.data.resolve() if account.way == "nobody" else account.data
        if data.exists() and any(data.iterdir()):
            raise Trouble(
                f"{data} có dữ liệu nhưng không phải của PostgreSQL. Hãy chọn --data khác.",
                f"{data} holds data that are not PostgreSQL's. Choose another --data.",
            )
        # Built in a second folder and renamed when complete, so that an interrupted first start leaves nothing behind.
        fresh = data.with_name(f"{data.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password_file = data.with_name(f".password-{os.getpid()}")
        password_file.touch(mode=0o600)
        try:
            password_file.write_text(self.password + "\n")
            if account.user:
                os.chown(password_file, *account.user)
                os.chown(fresh, *account.user)
            done = subprocess.run(
                account.command(
                    "initdb",
                    f"--pgdata={fresh}",
                    f"--username={SUPERUSER}",
                    "--encoding=UTF8",
                    "--locale-provider=builtin",
                    "--locale=C.UTF-8",
                    "--auth=scram-sha-256",
                    f"--pwfile={password_file}",
                    "--no-instructions",
                ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=_environment(),
                cwd="/",
                user=account.user[0] if account.user else None,
                group=account.user[1] if account.user else None,
                extra_groups=[] if account.user else None,
                check=False,
            )
        finally:
            password_file.unlink()
        with self.log.open("ab") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode != 0:
            raise self._start_failed()
        fresh.replace(data)

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        command = self.account.command("postgres", "-D", str(self.account.data.resolve()), "-p", str(self.port))
        return spawn(
            [*command, *options],
            log=self.log,
            env=_environment(),
            cwd=Path("/"),
            user=self.account.user,
            at_our_death=signal.SIGQUIT,
        )

    def _wait_until_it_answers(self, deadline: float) -> bool:
        """Return True when it answers, False when it ended or the deadline passed (it is then killed)."""
        assert self._process is not None
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            lines = self._pid_file()
            if len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready":
                return True
            time.sleep(0.02)
        self.kill()
        return False

    def _pid_file(self) -> list[str]:
        try:
            return (self.account.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _forget_stale_pid(self) -> None:
        """Remove a stale postmaster.pid. After a crash its pid may belong to another program; PostgreSQL then fails."""
        lines = self._pid_file()
        if not lines or not lines[0].strip().lstrip("-").isdigit():
            return
        try:
            arguments = Path(f"/proc/{abs(int(lines[0]))}/cmdline").read_bytes().split(b"\0")
        except OSError:
            arguments = []
        if not any(argument.endswith(b"postgres") for argument in arguments[:6]):
            with contextlib.suppress(FileNotFoundError):
                (self.account.data / "postmaster.pid").unlink()

    def _start_failed(self) -> Trouble:
        return Trouble(
            f"PostgreSQL không khởi động được; phần cuối của {self.log}:",
            f"PostgreSQL did not start. The end of {self.log}:\n{tail(self.log)}",
        )


def _environment() -> dict[str, str]:
    """Return the caller's environment without its PG* and locale variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "TZ": "UTC"}
