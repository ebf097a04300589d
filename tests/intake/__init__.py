"""Intake: its rules by themselves, and its process over HTTP with a real PostgreSQL."""
