"""Simulates the ministry's population registry: issues personal numbers, with delays and faults on request."""
