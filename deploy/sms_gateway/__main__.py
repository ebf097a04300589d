"""python -m deploy.sms_gateway --host 127.0.0.1 --port 8008"""

from __future__ import annotations

import argparse

from deploy.registry_simulator.faults import serve

from .api import build


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.sms_gateway", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8008)
    chosen = parser.parse_args()
    serve(build(), chosen.host, chosen.port)


if __name__ == "__main__":
    main()
