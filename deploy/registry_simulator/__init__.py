"""Stands for the ministry's population registry: gives personal numbers, slowly or badly when told to."""
