"""Runs all of hoso on one machine without containers: database, broker, simulators, services. Also holds the CLI."""
