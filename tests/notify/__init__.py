"""Tests of the notices: who is told, how, and once."""
