"""Tests that need a real Apache Kafka (Java and Maven): `make test-kafka`."""
