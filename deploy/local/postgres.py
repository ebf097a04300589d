"""The embedded PostgreSQL: a real server from a wheel, on loopback TCP, its data kept over restarts."""

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
"""Also covers reading the log again after a kill on a slow disk."""
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
"""For an old PC. fsync, synchronous_commit and full_page_writes stay as PostgreSQL ships them: on. So do the
log's largest size (1 GB) and its pages, uncompressed: a smaller log cost more than its room (docs/performance.md)."""


class Postgres:
    """One server whose data lie in `folder`/postgres; passwords in `folder`/secrets.json, log in `folder`/logs.

    `settings` change or add to SETTINGS (tests may turn fsync off). All methods block; none needs an event loop.
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
        """As whom it runs."""
        if self._account is None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._account = choose(self.folder, self._way)
        return self._account

    @property
    def password(self) -> str:
        """The superuser's."""
        return self.keys.get("postgres:superuser", lambda: secrets.token_urlsafe(24))

    def start(self) -> None:
        """Make the data folder where there is none, start, and wait until it answers (at most START_S).

        Raises Trouble: port taken, wheel missing, data of another version, or it does not start (the log's end is
        in the sentence).
        """
        if self.pid is not None:
            return
        ports.require_free(self.port, "PostgreSQL")
        if not (self.account.data / "PG_VERSION").is_file():
            self._initialise()
        deadline = time.monotonic() + START_S
        while True:
            self._forget_stale_pid()
            said_before = self.log.stat().st_size if self.log.exists() else 0
            self._process = self._spawn()
            if self._wait_until_it_answers(deadline):
                return
            # The children of a server that was killed hold its shared memory for a moment longer.
            said = tail(self.log, since=said_before)
            again = "shared memory" in said or "lock file" in said
            if not again or time.monotonic() > deadline:
                raise self._would_not_start()
            time.sleep(0.1)

    def stop(self, grace: float = 20.0) -> None:
        """Fast shutdown (SIGINT): open transactions are rolled back, everything is written. `grace` in seconds."""
        if self._process is not None:
            end(self._process, signal.SIGINT, grace)

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def poll(self) -> int | None:
        """The exit status when it has ended, None while it runs."""
        return self._process.poll() if self._process is not None else 0

    def destroy(self) -> None:
        """Stop and remove the data."""
        self.stop()
        forget(self.account)

    def dsn(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> str:
        """`postgresql://…`; without `password` the superuser's or the one kept for a service's role."""
        if password is None:
            password = self.password if user == SUPERUSER else self.role_password(user)
        return f"postgresql://{quote(user)}:{quote(password, safe='')}@127.0.0.1:{self.port}/{quote(database)}"

    def ensure_service_database(self, service: str) -> str:
        """The DSN of `service`'s own database as its own role; both are made where they are missing."""
        return self.ensure_service_databases([service])[service]

    def ensure_service_databases(self, services: list[str]) -> dict[str, str]:
        """As ensure_service_database, for many over one connection."""
        return ensure_databases(self.dsn(), {name: self.role_password(name) for name in services})

    def create_database(self, name: str, *, template: str = "template1", owner: str = SUPERUSER) -> str:
        """A new database, its DSN as `owner`. Nobody may be connected to `template`."""
        self.execute(f'create database "{name}" template "{template}" owner "{owner}"')
        return self.dsn(name, owner)

    def drop_database(self, name: str) -> None:
        """Whoever is connected is thrown out."""
        self.execute(f'drop database if exists "{name}" with (force)')

    def execute(self, statement: str) -> None:
        """One statement as superuser, outside a transaction, in the database postgres."""
        execute(self.dsn(), statement)

    def role_password(self, service: str) -> str:
        """The password of a service's role; made once."""
        return self.keys.get(f"postgres:{service}", lambda: secrets.token_urlsafe(24))

    def _initialise(self) -> None:
        account = self.account
        data = account.data.resolve() if account.way == "nobody" else account.data
        if data.exists() and any(data.iterdir()):
            raise Trouble(
                f"{data} có dữ liệu nhưng không phải của PostgreSQL. Hãy chọn --data khác.",
                f"{data} holds something that is not PostgreSQL's. Choose another --data.",
            )
        # Made beside its place and moved there when whole, so that a first start that breaks off leaves nothing half.
        fresh = data.with_name(f"{data.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        words = data.with_name(f".password-{os.getpid()}")
        words.touch(mode=0o600)
        try:
            words.write_text(self.password + "\n")
            if account.user:
                os.chown(words, *account.user)
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
                    f"--pwfile={words}",
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
            words.unlink()
        with self.log.open("ab") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode != 0:
            raise self._would_not_start()
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
        """True when it answers, False when it ended or time is over (it is then killed)."""
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
        """After a kill or a power cut the number in postmaster.pid may belong to anybody; PostgreSQL would give up."""
        lines = self._pid_file()
        if not lines or not lines[0].strip().lstrip("-").isdigit():
            return
        try:
            words = Path(f"/proc/{abs(int(lines[0]))}/cmdline").read_bytes().split(b"\0")
        except OSError:
            words = []
        if not any(word.endswith(b"postgres") for word in words[:6]):
            with contextlib.suppress(FileNotFoundError):
                (self.account.data / "postmaster.pid").unlink()

    def _would_not_start(self) -> Trouble:
        return Trouble(
            f"PostgreSQL không khởi động được; phần cuối của {self.log}:",
            f"PostgreSQL would not start; the end of {self.log}:\n{tail(self.log)}",
        )


def _environment() -> dict[str, str]:
    """Nothing of the caller's PG* or locale settings; the library path as it is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "TZ": "UTC"}
