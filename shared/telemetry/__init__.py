"""Logs and metrics, and a garbage collector that runs on a timer."""
