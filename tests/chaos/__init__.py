"""The campaign's own rules."""
