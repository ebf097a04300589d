"""The demo: a week of one commune's dossiers through the HTTP APIs, with a slow registry on Wednesday."""
