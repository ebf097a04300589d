"""Tests that need a real Apache Kafka (Java, Maven): `make test-kafka`."""
