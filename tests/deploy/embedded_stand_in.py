"""Stands for a service in tests of the stack: answers /readyz and says what it was told. Run as a program."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        told = {name: value for name, value in os.environ.items() if name.startswith("HOSO_")}
        said = {"/readyz": {"broker": "connected", "procedures": 25}, "/told": told}.get(self.path)
        self.send_response(200 if said is not None else 404)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_: object) -> None:
        """Silent."""


if __name__ == "__main__":
    if os.environ.get("HOSO_BROKEN"):
        sys.exit("this one never starts")
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ["HOSO_PORT"])
    ThreadingHTTPServer(("127.0.0.1", port), Answer).serve_forever()
