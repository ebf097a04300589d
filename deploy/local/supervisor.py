"""Keeps processes running: restarts a process that dies, after a pause that grows while it keeps dying."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from deploy.local.trouble import Trouble

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
STEADY_S = 20.0
"""A process that has run this long counts as recovered: after its next death the pause is FIRST_PAUSE_S again."""
CHECK_S = 0.05

Say = Callable[[str], None]


class Runnable(Protocol):
    """What a Keeper keeps running: a Program, Postgres or Broker."""

    @property
    def pid(self) -> int | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def poll(self) -> int | None: ...


class Keeper:
    """Keeps one process running. Every public method may be called from any thread."""

    def __init__(self, name: str, runnable: Runnable, say: Say, on_change: Callable[[], None]) -> None:
        self.name = name
        self.runnable = runnable
        self.deaths = 0
        """How often it died since the last start()."""
        self._say = say
        self._on_change = on_change
        self._lock = threading.RLock()
        self._wanted = threading.Event()
        self._let_go = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Start it and keep it running. When its start raises, the error is passed on and it is not kept running."""
        with self._lock:
            self.deaths = 0
            self.runnable.start()
            self._wanted.set()
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name=f"keeper-{self.name}", daemon=True)
                self._watcher.start()
        self._on_change()

    def stop(self) -> None:
        """Stop it cleanly. It stays down until start()."""
        self._wanted.clear()
        with self._lock:
            self.runnable.stop()
        self._on_change()

    def restart(self) -> None:
        """Stop it cleanly and start it at once."""
        with self._lock:
            self.stop()
            self.start()

    def kill(self, *, for_good: bool = False) -> int | None:
        """Send SIGKILL. The process starts again; with `for_good` only start() starts it. Returns the pid it had."""
        if for_good:
            self._wanted.clear()
        pid = self.runnable.pid
        if pid is not None:
            self.runnable.kill()
        return pid

    def signal(self, number: int) -> None:
        """Send it a signal: SIGSTOP freezes it, SIGCONT continues it. Does nothing when it is down."""
        if (pid := self.runnable.pid) is not None:
            os.kill(pid, number)

    def release(self) -> None:
        """Stop it and end the watching thread."""
        self._let_go.set()
        self.stop()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(5)

    def _watch(self) -> None:
        pause = FIRST_PAUSE_S
        started = time.monotonic()
        while not self._let_go.wait(CHECK_S):
            if not self._wanted.is_set() or self.runnable.poll() is None:
                continue
            with self._lock:
                status = self.runnable.poll()
                if not self._wanted.is_set() or status is None:
                    continue
            if time.monotonic() - started > STEADY_S:
                pause = FIRST_PAUSE_S
            self.deaths += 1
            self._say(f"{self.name}: {_ended(status)}; chạy lại sau / starts again in {pause:g} s")
            if self._let_go.wait(pause):
                return
            pause = min(pause * 2, LONGEST_PAUSE_S)
            with self._lock:
                if not self._wanted.is_set():
                    continue
                try:
                    self.runnable.start()
                except (Trouble, OSError) as error:
                    self._say(f"{self.name}: {error}")
                    continue
                started = time.monotonic()
            self._on_change()


class Supervisor:
    """The keepers of all processes, by name."""

    def __init__(self, say: Say, on_change: Callable[[], None]) -> None:
        self._say = say
        self._on_change = on_change
        self._keepers: dict[str, Keeper] = {}

    def add(self, name: str, runnable: Runnable) -> Keeper:
        """Add a keeper for `runnable`, not started yet. Raises ValueError when the name is taken."""
        if name in self._keepers:
            raise ValueError(f"a process called {name} already exists")
        keeper = Keeper(name, runnable, self._say, self._on_change)
        self._keepers[name] = keeper
        return keeper

    def __getitem__(self, name: str) -> Keeper:
        return self._keepers[name]

    def __contains__(self, name: str) -> bool:
        return name in self._keepers

    def names(self) -> list[str]:
        return list(self._keepers)

    def pids(self) -> dict[str, int]:
        """Return the process ids of the running processes, by name."""
        pids = {name: keeper.runnable.pid for name, keeper in list(self._keepers.items())}
        return {name: pid for name, pid in pids.items() if pid is not None}

    def start(self, names: Iterable[str]) -> None:
        """Start them in parallel. Raises the first error after all have been tried."""
        self._for_all(names, lambda keeper: keeper.start())

    def release(self, names: Iterable[str]) -> None:
        """Stop them in parallel, for good."""
        self._for_all([name for name in names if name in self._keepers], lambda keeper: keeper.release())

    def forget(self, name: str) -> None:
        """Stop it for good and remove its name."""
        self._keepers[name].release()
        del self._keepers[name]

    def _for_all(self, names: Iterable[str], act: Callable[[Keeper], None]) -> None:
        keepers = [self._keepers[name] for name in names]
        if not keepers:
            return
        with ThreadPoolExecutor(len(keepers)) as pool:
            errors = [future.exception() for future in [pool.submit(act, keeper) for keeper in keepers]]
        for error in errors:
            if error is not None:
                raise error


def _ended(status: int) -> str:
    return f"bị dừng bởi tín hiệu / ended by signal {-status}" if status < 0 else f"kết thúc / ended with {status}"
