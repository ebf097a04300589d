"""Settings of the two kinds of broker that hoso runs on: Apache Kafka, and the embedded one for the demo and tests."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka import AIOKafkaProducer


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """`servers`: HOST:PORT, several with commas. `flavour` is `apache` or `tansu` (the embedded one)."""

    servers: str
    flavour: str = "apache"

    @property
    def addresses(self) -> list[str]:
        """One by one, for FastStream: it takes a string for one address, where aiokafka takes it apart."""
        return [address.strip() for address in self.servers.split(",")]

    @property
    def session_timeout_ms(self) -> int:
        # The embedded broker answers a join after about half the session time; its clients never travel a network.
        return 3_000 if self.flavour == "tansu" else 10_000

    @property
    def heartbeat_ms(self) -> int:
        return self.session_timeout_ms // 3

    @property
    def fetch_wait_ms(self) -> int:
        # The embedded broker answers a long poll only when its time is over, Apache Kafka as soon as it has one. At 20
        # no dossier is sooner through: batches become smaller, processors busier, and the broker works a quarter more.
        return 40 if self.flavour == "tansu" else 500

    @property
    def rest_wait_ms(self) -> int:
        """The same while nothing comes, or more than enough: asking the embedded broker 50 times a second cost a fifth
        of a core there and a twentieth in each service."""
        return 100 if self.flavour == "tansu" else self.fetch_wait_ms

    @property
    def unhurried_wait_ms(self) -> int:
        """The same where nobody waits for what comes."""
        return 500

    def producer(self, name: str) -> AIOKafkaProducer:
        """A producer whose acknowledgement means: on every in-sync replica."""
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
