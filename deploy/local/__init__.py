"""The whole of hoso on one machine without containers: database, broker, registry simulator, services, and the CLI."""
