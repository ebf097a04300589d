"""Starts and stops the whole stack on one machine, in order, and waits until it is ready."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from deploy.local import call, office_clock, ports
from deploy.local.broker import Broker, answers
from deploy.local.databases import ensure_databases
from deploy.local.endpoints import SERVICES
from deploy.local.environment import ROOT, Environment
from deploy.local.folder import claim
from deploy.local.keys import Keys, write_private
from deploy.local.postgres import Postgres
from deploy.local.processes import tail
from deploy.local.program import Program
from deploy.local.supervisor import Keeper, Say, Supervisor
from deploy.local.trouble import Trouble

OUTSIDE = ("registry", "sms")
"""Stand-ins for outside systems: the ministry's registry and the SMS gateway."""
EMBEDDED = "embedded"
MAX_DEATHS = 6
"""Give up on a process that has died this often before it was ever ready."""


def _quiet(_: str) -> None:
    return


class Stack:
    """PostgreSQL, broker, simulators and services as supervised processes. All end when this process ends.

    `broker`: "embedded" or HOST:PORT; `postgres`: "embedded" or the DSN of a role that may create roles and
    databases. `now` and `speed`: the office clock (see office_clock.set_clock); `punctual`: it shows `now` when the
    services should be ready (see office_clock.postpone). `env`: more HOSO_* for every service;
    `commands`: replacement commands by process name (tests, profilers). `say` receives messages about processes.
    All methods block; none needs an event loop. Use it as a context manager, or call stop().
    """

    def __init__(
        self,
        data: Path,
        *,
        port_base: int = 8000,
        broker: str = EMBEDDED,
        postgres: str = EMBEDDED,
        now: datetime | None = None,
        speed: float | None = None,
        punctual: bool = False,
        seed: int = 1,
        env: Mapping[str, str] | None = None,
        commands: Mapping[str, Sequence[str]] | None = None,
        postgres_settings: dict[str, str] | None = None,
        services: Sequence[str] = SERVICES,
        say: Say = _quiet,
    ) -> None:
        self.data = data.resolve()
        self.port_base = port_base
        self.services = tuple(services)
        self.supervisor = Supervisor(say, self._write_endpoints)
        self.postgres = Postgres(self.data, self._port("postgres"), settings=postgres_settings)
        self.broker = Broker(self.data, self._port("broker"))
        self._own_broker = broker == EMBEDDED
        self._own_postgres = postgres == EMBEDDED
        self._admin = postgres
        self._kafka = self.broker.bootstrap if self._own_broker else broker
        self._now, self._speed, self._punctual, self._seed = now, speed, punctual, seed
        self._env = dict(env or {})
        self._commands = dict(commands or {})
        self._dsns: dict[str, str] = {}
        self._ports = {name: self._port(name) for name in (*SERVICES, *OUTSIDE)}
        self._published = threading.Lock()
        self._ready = False
        self._stopped = threading.Event()
        self._lock_file: IO[str] | None = None
        self.environment: Environment | None = None

    def start(self) -> None:
        """Start everything and return when all processes run; wait_ready() waits until they serve.

        Raises Trouble: folder in use or not writable, port taken, wheel missing, office time would run backwards.
        """
        self._lock_file, started = claim(self.data), time.monotonic()
        try:
            clock = office_clock.set_clock(self.data / "office.json", self._now, self._speed)
            self.environment = Environment(
                keys=Keys(self.data / "secrets.json"),
                clock=clock,
                kafka=self._kafka,
                flavour="tansu" if self._own_broker else "apache",
                urls={name: f"http://127.0.0.1:{port}" for name, port in self._ports.items()},
                extra=self._env,
            )
            self._require_ports()
            self._check_given_broker()
            for name in OUTSIDE:
                self.supervisor.add(name, self._program(name, name, self._ports[name]))
            early: list[str] = list(OUTSIDE)
            if self._own_broker:
                self.supervisor.add("broker", self.broker)
                early.append("broker")
            if self._own_postgres:
                self.supervisor.add("postgres", self.postgres)
                early.append("postgres")
            self.supervisor.start(early)
            self._dsns = self._databases()
            if self._punctual:
                clock = office_clock.postpone(self.data / "office.json", clock, time.monotonic() - started)
                self.environment.clock = clock
            for name in self.services:
                self.supervisor.add(name, self._program(name, name, self._ports[name]))
            self.supervisor.start(self.services)
            threading.Thread(target=self._keep_clock, name="hoso-clock", daemon=True).start()
        except BaseException:
            self.stop()
            raise

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when every service has its database and broker and intake holds the procedures.

        `timeout` in seconds. Raises Trouble with the name of a process that is not ready and the end of its log.
        """
        deadline = time.monotonic() + timeout
        waiting = [*self.services, *OUTSIDE]
        while waiting:
            waiting = [name for name in waiting if not self._is_ready(name)]
            for name in waiting:
                if self.supervisor[name].deaths >= MAX_DEATHS or time.monotonic() > deadline:
                    raise self._not_ready(name)
            if waiting:
                time.sleep(0.05)
        self._ready = True
        self._write_endpoints()

    @property
    def endpoints(self) -> dict[str, Any]:
        """The content of endpoints.json."""
        assert self.environment is not None, "not started"
        urls = self.environment.urls
        known = {name: urls[name] for name in (*self.services, *OUTSIDE)}
        clock = self.environment.clock
        return {
            **known,
            "kafka": self._kafka,
            "databases": {name: self._dsns[name] for name in self.services if name in self._dsns},
            "pids": self.pids,
            "tokens": self.environment.tokens,
            "instances": {name: url for name, url in urls.items() if name not in known and name in self.supervisor},
            "office": {"office0": clock.office0.isoformat(), "wall0": clock.wall0, "speed": clock.speed},
        }

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the running processes, by name."""
        return self.supervisor.pids()

    def log(self, name: str) -> Path:
        """Return the path of a process's log."""
        return self.data / "logs" / f"{name}.log"

    def restart(self, name: str) -> None:
        """Stop one process cleanly and start it at once."""
        self.supervisor[name].restart()

    def kill(self, name: str, *, for_good: bool = False) -> int | None:
        """Send SIGKILL. The supervisor starts it again; with `for_good` only bring_back() does. Returns its old pid."""
        return self.supervisor[name].kill(for_good=for_good)

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process: SIGSTOP freezes it, SIGCONT continues it."""
        self.supervisor[name].signal(number)

    def take_down(self, name: str) -> None:
        """Stop one process cleanly. It stays down until bring_back()."""
        self.supervisor[name].stop()

    def bring_back(self, name: str) -> None:
        """Start a process that take_down() or kill() stopped."""
        self.supervisor[name].start()

    def add_instance(self, service: str, port: int | None = None, timeout: float = 30.0) -> str:
        """Start one more process of a service and wait until it serves. Returns its name, for example `workflow-2`."""
        assert self.environment is not None, "not started"
        number = 2
        while f"{service}-{number}" in self.supervisor:
            number += 1
        name = f"{service}-{number}"
        chosen = port or ports.free_port()
        self.environment.urls[name] = f"http://127.0.0.1:{chosen}"
        self.supervisor.add(name, self._program(name, service, chosen)).start()
        deadline = time.monotonic() + timeout
        while not self._is_ready(name):
            if time.monotonic() > deadline:
                raise self._not_ready(name)
            time.sleep(0.05)
        self._write_endpoints()
        return name

    def remove_instance(self, name: str) -> None:
        """Stop an added instance and forget it."""
        self.supervisor.forget(name)
        if self.environment is not None:
            self.environment.urls.pop(name, None)
        self._write_endpoints()

    def stop(self) -> None:
        """Stop everything: services first, then stand-ins, broker, PostgreSQL. A second call does nothing."""
        if self._lock_file is None:
            return
        with self._published:
            self._ready = False
            (self.data / "endpoints.json").unlink(missing_ok=True)
        self._stopped.set()
        last = (*OUTSIDE, "broker", "postgres")
        self.supervisor.release(name for name in self.supervisor.names() if name not in last)
        for group in (OUTSIDE, ("broker",), ("postgres",)):
            self.supervisor.release(group)
        office_clock.seen(self.data / "office.json")
        self._lock_file.close()
        self._lock_file = None

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _port(self, name: str) -> int:
        return self.port_base + ports.OFFSETS[name]

    def _require_ports(self) -> None:
        wanted = {name: self._ports[name] for name in (*self.services, *OUTSIDE)}
        if self._own_broker:
            wanted["Kafka"] = self.broker.port
        if self._own_postgres:
            wanted["PostgreSQL"] = self.postgres.port
        for purpose, port in wanted.items():
            ports.require_free(port, purpose)

    def _check_given_broker(self) -> None:
        if self._own_broker:
            return
        for server in self._kafka.split(","):
            host, _, port = server.rpartition(":")
            if host and port.isdigit() and answers(host, int(port), 3.0):
                return
        raise Trouble(
            f"Không có Kafka nào trả lời ở {self._kafka}. Hãy kiểm tra --broker HOST:PORT.",
            f"No Kafka answers at {self._kafka}. Check --broker HOST:PORT.",
        )

    def _databases(self) -> dict[str, str]:
        if self._own_postgres:
            return self.postgres.ensure_service_databases(list(self.services))
        passwords = {name: self.postgres.role_password(name) for name in self.services}
        try:
            return ensure_databases(self._admin, passwords)
        except Exception as error:
            raise Trouble(
                f"Không dùng được PostgreSQL đã cho bằng --postgres: {error}",
                f"The PostgreSQL given with --postgres cannot be used: {error}",
            ) from error

    def _program(self, name: str, kind: str, port: int) -> Program:
        assert self.environment is not None
        if kind == "registry":
            module = ["deploy.registry_simulator", "--port", str(port), "--seed", str(self._seed)]
            module += ["--book", str(self.data / "registry.jsonl")]
        elif kind == "sms":
            module = ["deploy.sms_gateway", "--port", str(port), "--book", str(self.data / "sms.jsonl")]
        else:
            module = [f"services.{kind}.main"]
        env = (
            self.environment.plain()
            if kind in OUTSIDE
            else self.environment.service(kind, port, self._dsns.get(kind, ""))
        )
        command = self._commands.get(name, self._commands.get(kind, [sys.executable, "-m", *module]))
        return Program(name, command, port, env, ROOT, self.log(name))

    def _is_ready(self, name: str) -> bool:
        assert self.environment is not None
        if self.supervisor[name].runnable.pid is None:
            return False
        kind = name.partition("-")[0]
        if kind in OUTSIDE:
            return not ports.is_free(self._ports[kind])
        try:
            answer = call.call(self.environment.urls[name], "/readyz", timeout=3.0)
        except Trouble:
            return False
        has_procedures = kind != "intake" or "workflow" not in self.services or bool(answer.get("procedures"))
        return answer.get("broker") == "connected" and has_procedures

    def _not_ready(self, name: str) -> Trouble:
        return Trouble(
            f"{name} không sẵn sàng; phần cuối của {self.log(name)}:",
            f"{name} does not become ready. The end of {self.log(name)}:\n{tail(self.log(name))}",
        )

    def _write_endpoints(self) -> None:
        with self._published:
            if self._ready:
                write_private(self.data / "endpoints.json", self.endpoints)

    def _keep_clock(self) -> None:
        while not self._stopped.wait(office_clock.TICK_S):
            office_clock.seen(self.data / "office.json")


__all__ = ["EMBEDDED", "Keeper", "Stack"]
