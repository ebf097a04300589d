"""HTTP: who is calling, strict JSON bodies, problem+json, the OpenAPI document, and the server."""
