"""The commands of `hoso`, one group per file."""
