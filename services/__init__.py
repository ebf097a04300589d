"""The four services; each has its own process, database and role, and none imports another."""
