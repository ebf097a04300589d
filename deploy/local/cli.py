"""The command `hoso`: registers all commands and prints errors."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import typer

from deploy.local.commands import doctor, due, parked, stages, up, verify
from deploy.local.trouble import Trouble, tell


def build() -> typer.Typer:
    """Return the application with all commands; `demo` only where deploy.demo is installed."""
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
    """Entry point. Prints an error that a person can fix as two sentences and exits with 1."""
    for stream in (sys.stdout, sys.stderr):
        # On a terminal with another encoding, a wrong letter is better than a failed command.
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
