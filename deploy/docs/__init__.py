"""Documents that are generated, so that they cannot go stale: events, AsyncAPI, JSON Schemas, roles and endpoints."""
