"""Runs a real Apache Kafka on this machine without containers, for tests and for trying hoso on it."""

from deploy.kafka.cluster import KafkaCluster
from deploy.kafka.jars import KafkaUnavailable, fetch_jars, find_java

__all__ = ["KafkaCluster", "KafkaUnavailable", "fetch_jars", "find_java"]
