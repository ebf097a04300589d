"""A program that stands in for a service in tests: answers /readyz, and /settings with its HOSO_* environment."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        settings = {name: value for name, value in os.environ.items() if name.startswith("HOSO_")}
        answer = {"/readyz": {"broker": "connected", "procedures": 25}, "/settings": settings}.get(self.path)
        self.send_response(200 if answer is not None else 404)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    if os.environ.get("HOSO_BROKEN"):
        sys.exit("HOSO_BROKEN is set: this process never starts")
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ["HOSO_PORT"])
    ThreadingHTTPServer(("127.0.0.1", port), Answer).serve_forever()
