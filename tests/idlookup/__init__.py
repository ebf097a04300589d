"""Tests of idlookup: its rules alone, and the service against the registry simulator."""
