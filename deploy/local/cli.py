"""The command `hoso`: every command's registration, and how an error is told."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import typer

from deploy.local.commands import doctor, due, parked, stages, up, verify
from deploy.local.trouble import Trouble, tell


def build() -> typer.Typer:
    """All commands; the demo's only where it is installed."""
    app = typer.Typer(
        name="hoso",
        help="hoso: hồ sơ một cửa, theo từng sự kiện. / Dossiers of a one-stop centre, event by event.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    if importlib.util.find_spec("deploy.demo") and importlib.util.find_spec("deploy.demo.command"):
        demo: Any = importlib.import_module("deploy.demo.command")
        app.command("demo")(demo.demo)
    for group in (up, stages, parked, due, verify, doctor):
        group.register(app)
    return app


def main() -> None:
    """Entry point: errors a person can put right are told in two sentences, and the exit status is 1."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal with another encoding shows a wrong letter rather than a broken command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        build()(prog_name="hoso")
    except Trouble as trouble:
        tell(trouble)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
