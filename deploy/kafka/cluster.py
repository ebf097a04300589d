"""Starts, stops, kills and wipes one or three Apache Kafka brokers on the loopback interface."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from deploy.kafka.jars import HERE, KafkaUnavailable, fetch_jars, find_java

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
# The kernel sends PDEATHSIG when the parent's *thread* ends, so one thread that never ends starts every broker.
_starter = ThreadPoolExecutor(1, thread_name_prefix="kafka-starter")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _new_cluster_id() -> str:
    # Like Kafka's Uuid.randomUuid: 16 bytes in URL-safe base64, without a leading dash (its tools read an option).
    while (cluster_id := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return cluster_id


async def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


class KafkaCluster:
    """One or three KRaft brokers (each also a controller) under `directory`, on 127.0.0.1.

    Broker i (0, 1, 2) serves clients on `port_base + 2*i`; the next port is its controller's. The data under
    `directory` survive stop() and kill(); wipe() deletes them. The brokers die with the process that started them.
    """

    def __init__(
        self,
        brokers: Literal[1, 3],
        directory: Path,
        port_base: int,
        *,
        jars: Path | None = None,
        heap_mb: int = 384,
        overrides: Mapping[str, str] | None = None,
    ) -> None:
        """`jars`: folder of Kafka's jars (None: `.hoso-kafka` in the project); `heap_mb`: heap of each broker;
        `overrides`: broker settings that replace or extend settings()."""
        if brokers not in (1, 3):
            raise ValueError("a cluster has 1 or 3 brokers: with 2, no broker may fail")
        self.brokers = brokers
        self.directory = directory.resolve()
        self.port_base = port_base
        self.heap_mb = heap_mb
        self._overrides = dict(overrides or {})
        self._jars_directory = jars
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._java: list[str] = []

    @property
    def bootstrap(self) -> str:
        """`HOST:PORT[,HOST:PORT…]` for clients."""
        return ",".join(f"127.0.0.1:{self.port_base + 2 * i}" for i in range(self.brokers))

    @property
    def pids(self) -> dict[int, int]:
        """Process ids of the running brokers, by broker number."""
        return {i: process.pid for i, process in self._processes.items() if process.poll() is None}

    @property
    def cluster_id(self) -> str:
        """The cluster's id; a wipe makes a new one. Raises FileNotFoundError before the first start."""
        return (self.directory / "cluster_id").read_text().strip()

    async def start(self, timeout: float = 90.0) -> None:  # noqa: ASYNC109 - the error includes the broker's log
        """Format new storage, start the brokers that are not running, and wait until they serve.

        `timeout` in seconds. Raises KafkaUnavailable: no Java, no Maven, port taken, or not ready in time.
        """
        jars = await asyncio.to_thread(fetch_jars, self._jars_directory)
        java = await asyncio.to_thread(find_java)
        self._java = [java, "-cp", f"{jars}/*", f"-Dlog4j2.configurationFile={HERE / 'log4j2.xml'}"]
        identity = self.directory / "cluster_id"
        if not identity.is_file():
            self.directory.mkdir(parents=True, exist_ok=True)
            identity.write_text(_new_cluster_id() + "\n")
        await asyncio.gather(*(asyncio.to_thread(self._format, i) for i in range(self.brokers)))
        self._require_ports()
        for i in range(self.brokers):
            self._spawn(i)
        await self._wait_until_ready(timeout)

    async def start_broker(self, i: int, timeout: float = 90.0) -> None:  # noqa: ASYNC109 - as start
        """Start broker `i` again after kill(i) and wait until the cluster counts it as a member."""
        self._spawn(i)
        await self._wait_until_ready(timeout)

    async def stop(self, grace: float = 15.0) -> None:
        """Stop all brokers and keep the data: SIGTERM, then SIGKILL after `grace` seconds.

        Without a majority the last broker does not stop by itself."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
                process.send_signal(signal.SIGCONT)
        await asyncio.gather(*(asyncio.to_thread(self._reap, p, grace) for p in self._processes.values()))
        self._processes.clear()

    async def stop_broker(self, i: int, grace: float = 15.0) -> None:
        """Stop broker `i` and keep its data: SIGTERM, then SIGKILL after `grace` seconds."""
        process = self._processes.pop(i)
        process.terminate()
        await asyncio.to_thread(self._reap, process, grace)

    def kill(self, i: int) -> None:
        """Send SIGKILL to broker `i`. Acknowledged records survive on disk or in the page cache."""
        process = self._processes[i]
        process.kill()
        process.wait()

    async def wipe(self) -> None:
        """Kill all brokers at once and delete their data. The next start makes a new cluster id."""
        for i in self.pids:
            self.kill(i)
        self._processes.clear()
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    def log(self, i: int = 0) -> Path:
        """Return the path of broker `i`'s log."""
        return self._home(i) / "broker.log"

    def settings(self, i: int) -> dict[str, str]:
        """Return broker `i`'s server.properties. docs/brokers.md explains the durability settings."""
        majority = str(self.brokers // 2 + 1)
        copies = str(self.brokers)
        port = self.port_base + 2 * i
        voters = ",".join(f"{n + 1}@127.0.0.1:{self.port_base + 2 * n + 1}" for n in range(self.brokers))
        return {
            "process.roles": "broker,controller",
            "node.id": str(i + 1),
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self._home(i) / "data"),
            # durability
            "default.replication.factor": copies,
            "min.insync.replicas": majority,
            "unclean.leader.election.enable": "false",
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": majority,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": majority,
            # no topic with a wrong number of partitions, created by mistake
            "auto.create.topics.enable": "false",
            # small: for tests on two cores
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
            "group.initial.rebalance.delay.ms": "0",
            **self._overrides,
        }

    def _home(self, i: int) -> Path:
        return self.directory / f"broker-{i}"

    def _require_ports(self) -> None:
        for i in set(range(self.brokers)) - self.pids.keys():
            for port in (self.port_base + 2 * i, self.port_base + 2 * i + 1):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    try:
                        probe.bind(("127.0.0.1", port))
                    except OSError as taken:
                        raise KafkaUnavailable(
                            f"Cổng {port} đang bị chương trình khác dùng; Kafka cần cổng này. / "
                            f"Port {port}, which Kafka needs, is taken by another program."
                        ) from taken

    def _format(self, i: int) -> None:
        home = self._home(i)
        home.mkdir(parents=True, exist_ok=True)
        properties = home / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self.settings(i).items()))
        if (home / "data" / "meta.properties").is_file():
            return
        command = [*self._java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format"]
        command += ["-t", self.cluster_id, "-c", str(properties)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KafkaUnavailable(
                "Không định dạng được kho lưu của Kafka. / Kafka's storage could not be formatted.\n"
                + (done.stdout + done.stderr).strip()
            )

    def _spawn(self, i: int) -> None:
        if i in self.pids:
            return
        command = [*self._java, "-Xms64m", f"-Xmx{self.heap_mb}m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
        command += ["kafka.Kafka", str(self._home(i) / "server.properties")]
        with self.log(i).open("ab") as log:
            self._processes[i] = _starter.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must not reach the brokers: stop() ends them
                preexec_fn=_die_with_parent,
                env={k: v for k, v in os.environ.items() if not k.startswith(("HOSO_", "KAFKA_"))},
            ).result()

    async def _wait_until_ready(self, timeout: float) -> None:  # noqa: ASYNC109 - as start
        deadline = asyncio.get_running_loop().time() + timeout
        while asyncio.get_running_loop().time() < deadline:
            for i, process in self._processes.items():
                if process.poll() not in (None, -signal.SIGKILL):
                    raise KafkaUnavailable(self._message(i, "đã dừng ngay khi khởi động", "ended while starting"))
            if self.pids and await self._members() >= len(self.pids):
                return
            await asyncio.sleep(0.05)
        raise KafkaUnavailable(
            self._message(0, f"chưa sẵn sàng sau {timeout:.0f} s", f"is not ready after {timeout:.0f} s")
        )

    async def _members(self) -> int:
        """Return the smallest member count that a running broker reports; 0 while one of them does not answer."""
        counts = []
        for i in self.pids:
            if not await _listens(f"127.0.0.1:{self.port_base + 2 * i}"):
                return 0
        for i in self.pids:
            address = f"127.0.0.1:{self.port_base + 2 * i}"
            admin = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=3000)
            try:
                await admin.start()
                description = await admin.describe_cluster()
            except (KafkaError, OSError, TimeoutError):
                return 0
            finally:
                with contextlib.suppress(KafkaError, OSError):
                    await admin.close()
            if description["cluster_id"] != self.cluster_id:
                raise KafkaUnavailable(
                    f"Địa chỉ {address} đang thuộc một Kafka khác. / {address} belongs to another Kafka."
                )
            counts.append(len(description["brokers"]))
        return min(counts, default=0)

    def _message(self, i: int, vi: str, en: str) -> str:
        lines = self.log(i).read_text(errors="replace").splitlines()[-12:]
        return f"Kafka {vi}, xem {self.log(i)}. / Kafka {en}, see {self.log(i)}.\n" + "\n".join(lines)

    @staticmethod
    def _reap(process: subprocess.Popen[bytes], grace: float) -> None:
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
