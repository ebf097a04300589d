"""Keeps processes running: who dies is started again, after a pause that grows when it keeps dying."""

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
"""Who has run this long has recovered: the next death is again followed by the first pause."""
LOOK_S = 0.05

Say = Callable[[str], None]


class Runnable(Protocol):
    """What can be kept running: a Program, the Postgres, the Broker."""

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
        """How often it died by itself since it was last started by hand."""
        self._say = say
        self._on_change = on_change
        self._lock = threading.RLock()
        self._wanted = threading.Event()
        self._let_go = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Start it and keep it running from now on. Raises what its start raises; it is then not kept."""
        with self._lock:
            self.deaths = 0
            self.runnable.start()
            self._wanted.set()
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name=f"keeper-{self.name}", daemon=True)
                self._watcher.start()
        self._on_change()

    def stop(self) -> None:
        """Stop it in order; it stays down until start()."""
        self._wanted.clear()
        with self._lock:
            self.runnable.stop()
        self._on_change()

    def restart(self) -> None:
        """Stop it in order and start it at once."""
        with self._lock:
            self.stop()
            self.start()

    def kill(self, *, for_good: bool = False) -> int | None:
        """kill -9; it is started again, or, `for_good`, stays down until start(). The process id it had, if any."""
        if for_good:
            self._wanted.clear()
        pid = self.runnable.pid
        if pid is not None:
            self.runnable.kill()
        return pid

    def signal(self, number: int) -> None:
        """Send it a signal (SIGSTOP freezes it, SIGCONT lets it go on). Nothing happens when it is down."""
        if (pid := self.runnable.pid) is not None:
            os.kill(pid, number)

    def release(self) -> None:
        """Stop it and watch it no longer."""
        self._let_go.set()
        self.stop()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(5)

    def _watch(self) -> None:
        pause = FIRST_PAUSE_S
        began = time.monotonic()
        while not self._let_go.wait(LOOK_S):
            if not self._wanted.is_set() or self.runnable.poll() is None:
                continue
            with self._lock:
                status = self.runnable.poll()
                if not self._wanted.is_set() or status is None:
                    continue
            if time.monotonic() - began > STEADY_S:
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
                began = time.monotonic()
            self._on_change()


class Supervisor:
    """Many keepers by name."""

    def __init__(self, say: Say, on_change: Callable[[], None]) -> None:
        self._say = say
        self._on_change = on_change
        self._keepers: dict[str, Keeper] = {}

    def add(self, name: str, runnable: Runnable) -> Keeper:
        """Raises ValueError when the name is taken."""
        if name in self._keepers:
            raise ValueError(f"there is already a process called {name}")
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
        """Of those that run."""
        found = {name: keeper.runnable.pid for name, keeper in list(self._keepers.items())}
        return {name: pid for name, pid in found.items() if pid is not None}

    def start(self, names: Iterable[str]) -> None:
        """Start them side by side; the first error is raised when all have been tried."""
        self._for_all(names, lambda keeper: keeper.start())

    def release(self, names: Iterable[str]) -> None:
        """Stop them side by side, for good."""
        self._for_all([name for name in names if name in self._keepers], lambda keeper: keeper.release())

    def forget(self, name: str) -> None:
        """Stop it for good and drop its name."""
        self._keepers[name].release()
        del self._keepers[name]

    def _for_all(self, names: Iterable[str], act: Callable[[Keeper], None]) -> None:
        keepers = [self._keepers[name] for name in names]
        if not keepers:
            return
        with ThreadPoolExecutor(len(keepers)) as many:
            errors = [future.exception() for future in [many.submit(act, keeper) for keeper in keepers]]
        for error in errors:
            if error is not None:
                raise error


def _ended(status: int) -> str:
    return f"bị dừng bởi tín hiệu / ended by signal {-status}" if status < 0 else f"kết thúc / ended with {status}"
