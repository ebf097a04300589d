"""python -m deploy.sms_gateway --host 127.0.0.1 --port 8008 [--book FILE]"""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy.registry_simulator.book import Book
from deploy.registry_simulator.faults import serve
from deploy.sms_gateway.api import build


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.sms_gateway", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8008)
    parser.add_argument("--book", type=Path, default=None, help="file that keeps the sent messages across restarts")
    arguments = parser.parse_args()
    serve(build(book=Book(arguments.book)), arguments.host, arguments.port)


if __name__ == "__main__":
    main()
