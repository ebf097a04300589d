"""A process is killed at each fault point and starts again. Nothing is lost, nothing has effect twice."""
