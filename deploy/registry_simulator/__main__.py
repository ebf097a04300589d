"""python -m deploy.registry_simulator --host 127.0.0.1 --port 8005 [--seed 1] [--book FILE]"""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy.registry_simulator.api import build
from deploy.registry_simulator.book import Book
from deploy.registry_simulator.faults import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.registry_simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8005)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--book", type=Path, default=None, help="file that keeps the issued numbers across restarts")
    arguments = parser.parse_args()
    serve(build(arguments.seed, Book(arguments.book)), arguments.host, arguments.port)


if __name__ == "__main__":
    main()
