"""A process is killed at each fault point and starts again; nothing is lost or repeated."""
