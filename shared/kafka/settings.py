"""Settings of the two kinds of broker that hoso runs on: Apache Kafka, and the embedded one for the demo and tests."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka import AIOKafkaProducer


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """`servers`: HOST:PORT, several separated by commas. `flavour`: `apache`, or `tansu` for the embedded broker."""

    servers: str
    flavour: str = "apache"

    @property
    def addresses(self) -> list[str]:
        """The servers as a list, for FastStream: it takes a string for one address, while aiokafka splits it."""
        return [address.strip() for address in self.servers.split(",")]

    @property
    def session_timeout_ms(self) -> int:
        # The embedded broker answers a join after about half of the session timeout, and there is no network between.
        return 3_000 if self.flavour == "tansu" else 10_000

    @property
    def heartbeat_ms(self) -> int:
        return self.session_timeout_ms // 3

    @property
    def fetch_wait_ms(self) -> int:
        """How long the broker may keep a fetch open while it has no record."""
        # Apache Kafka answers as soon as it has a record, the embedded broker only when the time is over. A
        # shorter time makes batches smaller and the broker busier, and no dossier faster (docs/performance.md).
        return 40 if self.flavour == "tansu" else 500

    @property
    def rest_wait_ms(self) -> int:
        """The same at rest and in a backlog: each request costs the embedded broker and the service processor time."""
        return 100 if self.flavour == "tansu" else self.fetch_wait_ms

    @property
    def unhurried_wait_ms(self) -> int:
        """The same for a service whose records nobody waits for."""
        return 500

    def producer(self, name: str) -> AIOKafkaProducer:
        """A producer, not started yet. It reports a record as sent when every in-sync replica has it."""
        return AIOKafkaProducer(
            bootstrap_servers=self.servers,
            client_id=name,
            acks="all",
            enable_idempotence=self.flavour == "apache",
            linger_ms=0,
            request_timeout_ms=15_000,
            retry_backoff_ms=50,
            metadata_max_age_ms=30_000,
            max_request_size=1_048_576,
        )
