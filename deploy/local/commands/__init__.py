"""The commands of `hoso`, one group a file."""
