"""The chaos campaign: kills, freezes and restarts all parts of the stack under load, then verifies the result."""
