"""The events and their schemas, compared with files that were written once and never change."""
