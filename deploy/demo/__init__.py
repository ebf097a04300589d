"""The demo: a week of one commune's dossiers through the HTTP APIs, the registry slow in the middle."""
