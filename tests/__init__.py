"""The tests: rules, services, journeys."""
