"""Injects the blows of a campaign into the running stack and records whether work was in flight."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx2

from deploy.chaos.plan import SERVICES, Blow
from deploy.kafka.cluster import KafkaCluster
from deploy.local.program import Program
from deploy.local.stack import Stack
from deploy.local.trouble import Trouble

DEATH_WITHIN_S = 20.0
"""How long to wait for a process to die at its fault point. Afterwards the fault point stays armed."""
RETRY_FOR_S = 30.0
OUTSIDE = ("registry", "sms")
AFFECTED = {"postgres": SERVICES, "registry": ("idlookup",), "sms": ("notify",)}
"""Target -> the services whose work in flight a kill of the target interrupts."""
HEALTHY = {"error_rate": 0.0, "lost_answer_rate": 0.0, "hang": False, "down": False}
IN_FLIGHT = {
    "open transaction": "select exists(select 1 from pg_stat_activity where usename = current_user"
    " and pid <> pg_backend_pid() and xact_start is not null)",
    "unsent": "select exists(select 1 from proof.events where sent_at is null)",
    "request": "select exists(select 1 from proof.id_requests where state in ('waiting', 'calling', 'pending'))",
    "notice": "select exists(select 1 from proof.notices where state in ('due', 'sending'))",
}
CHECKED = {"idlookup": ("open transaction", "unsent", "request"), "notify": ("open transaction", "unsent", "notice")}


@dataclass
class Tally:
    """Counts of a campaign. `hit`: kills with work in flight; `steps`: deaths at each fault point."""

    kills: int = 0
    hit: int = 0
    blows: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)


class FaultInjector:
    """Injects blows into `stack`. `kafka`: the Kafka that this campaign started; None: embedded, or a given address."""

    def __init__(self, stack: Stack, kafka: KafkaCluster | None, folder: Path) -> None:
        self._stack, self._kafka, self._folder = stack, kafka, folder
        self._added: list[str] = []
        self._armed: dict[str, tuple[str, Path]] = {}
        self._broker_number = 0
        self.tally = Tally()

    @property
    def can_wipe(self) -> bool:
        """Only a Kafka that this campaign started may be emptied."""
        return self._kafka is not None

    async def inject(self, blow: Blow) -> None:
        """Carry out one blow. Returns when it is over; a killed process may still be starting."""
        self.tally.blows[blow.kind if blow.target in SERVICES else f"{blow.kind} {blow.target}"] += 1
        await getattr(self, "_" + blow.kind.replace("-", "_"))(blow)

    async def restore(self) -> None:
        """Reset all simulators, disarm all processes and remove the added instances."""
        for outside in OUTSIDE:
            await self._control(outside, self._healthy(outside))
        self._notice_deaths()
        for name in SERVICES:
            self._arm(name, "", None)
        for name in (*SERVICES, *OUTSIDE):
            # Kills of the campaign must not count as a process that cannot start.
            self._stack.supervisor[name].deaths = 0
        for name in self._added:
            await asyncio.to_thread(self._stack.remove_instance, name)
        self._added.clear()

    async def _kill(self, blow: Blow) -> None:
        if blow.target == "broker":
            await self._kill_broker()
            return
        busy = await self._is_busy(AFFECTED.get(blow.target, (blow.target,)))
        if self._stack.kill(blow.target) is not None:
            self.tally.kills += 1
            self.tally.hit += busy

    async def _kill_broker(self) -> None:
        if self._kafka is None and "broker" not in self._stack.supervisor:
            return
        busy = await self._is_busy(SERVICES)
        if self._kafka is None:
            self._stack.kill("broker")
        else:
            broker = self._next_broker(self._kafka)
            self._kafka.kill(broker)
            await self._kafka.start_broker(broker)
        self.tally.kills += 1
        self.tally.hit += busy

    async def _wipe(self, _: Blow) -> None:
        """Kill all brokers at once and start them empty, as a new cluster."""
        if self._kafka is None:
            return
        busy = await self._is_busy(SERVICES)
        await self._kafka.wipe()
        await self._kafka.start()
        self.tally.kills += 1
        self.tally.hit += busy

    async def _die_at(self, blow: Blow) -> None:
        self._notice_deaths()
        file = self._folder / f"{blow.target}-{blow.point}-{time.monotonic_ns()}"
        self._armed[blow.target] = blow.point, file
        self._arm(blow.target, blow.point, file)
        await self._kill(blow)
        deadline = time.monotonic() + DEATH_WITHIN_S
        while not file.exists() and time.monotonic() < deadline:  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(0.05)
        self._notice_deaths()

    def _notice_deaths(self) -> None:
        """Count the armed processes that have died at their fault point, during this blow or another one."""
        for name, (point, file) in list(self._armed.items()):
            if file.exists():
                del self._armed[name]
                self.tally.kills += 1
                self.tally.hit += 1
                self.tally.steps[point] += 1

    def _arm(self, name: str, point: str, file: Path | None) -> None:
        program = self._stack.supervisor[name].runnable
        assert isinstance(program, Program)
        program.env = {**program.env, "HOSO_FAULT": point, "HOSO_FAULT_FILE": str(file or "")}

    async def _freeze(self, blow: Blow) -> None:
        if blow.target == "broker" and self._kafka is not None:
            pid = self._kafka.pids.get(self._next_broker(self._kafka))
        else:
            pid = self._stack.pids.get(blow.target)
        if pid is None:
            return
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(blow.lasts_s)
        finally:
            os.kill(pid, signal.SIGCONT)

    async def _restart(self, blow: Blow) -> None:
        if blow.target == "broker" and self._kafka is not None:
            broker = self._next_broker(self._kafka)
            await self._kafka.stop_broker(broker)
            await self._kafka.start_broker(broker)
        elif blow.target in self._stack.supervisor:
            await asyncio.to_thread(self._stack.take_down, blow.target)
            await asyncio.to_thread(self._bring_back, blow.target)

    def _bring_back(self, name: str) -> None:
        """Try to start it until it works: PostgreSQL may still be recovering from an earlier kill."""
        deadline = time.monotonic() + RETRY_FOR_S
        while True:
            try:
                self._stack.bring_back(name)
                return
            except Trouble:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def _next_broker(self, kafka: KafkaCluster) -> int:
        """Return the brokers in turn, so that two of three are always running."""
        self._broker_number = (self._broker_number + 1) % kafka.brokers
        return self._broker_number

    async def _instance(self, blow: Blow) -> None:
        """Add an instance, or remove the one that was added before."""
        if self._added:
            await asyncio.to_thread(self._stack.remove_instance, self._added.pop())
            return
        try:
            self._added.append(await asyncio.to_thread(self._stack.add_instance, blow.target))
        except Trouble:
            # It did not become ready under these faults: remove it again.
            name = f"{blow.target}-2"
            if name in self._stack.supervisor:
                await asyncio.to_thread(self._stack.remove_instance, name)

    async def _weather(self, blow: Blow) -> None:
        await self._control(blow.target, dict(blow.settings))
        await asyncio.sleep(blow.lasts_s)
        await self._control(blow.target, self._healthy(blow.target))

    @staticmethod
    def _healthy(outside: str) -> dict[str, float | bool]:
        return HEALTHY | ({"latency_p50_s": 0.02, "latency_p95_s": 0.06} if outside == "registry" else {})

    async def _control(self, outside: str, settings: dict[str, float | bool]) -> None:
        """Change a simulator's settings. Tries again for a while: the simulator may just have been killed."""
        url, deadline = self._stack.endpoints[outside], time.monotonic() + RETRY_FOR_S
        async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
            while True:
                try:
                    (await http.put(f"{url}/control", json=settings)).raise_for_status()
                    return
                except httpx2.HTTPError:
                    if time.monotonic() > deadline:
                        raise
                await asyncio.sleep(0.1)

    async def _is_busy(self, services: tuple[str, ...]) -> bool:
        """Whether one of the services has open, unsent or unanswered work now; False when its database cannot say."""
        for service in services:
            try:
                connection = await asyncpg.connect(self._stack.endpoints["databases"][service], timeout=2)
            except (OSError, asyncpg.PostgresError, TimeoutError):
                continue
            try:
                for kind in CHECKED.get(service, ("open transaction", "unsent")):
                    if await connection.fetchval(IN_FLIGHT[kind], timeout=2):
                        return True
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                continue
            finally:
                connection.terminate()
        return False
