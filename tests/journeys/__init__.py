"""Journeys through the whole stack: every process is a real one, and is asked only over HTTP and Kafka."""
