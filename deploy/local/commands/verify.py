"""`hoso verify`: checks from outside the services that nothing is lost, repeated, issued twice or out of order."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from deploy.local import endpoints
from deploy.local.commands import options


def verify(
    data: options.Data = options.DATA,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Ghi thêm kết quả vào tệp. / Also write a file.")
    ] = None,
) -> None:
    """Chứng minh không mất, không lặp, không sai thứ tự. / Prove that nothing is lost, repeated or out of order."""
    from deploy.verify import exit_code, run

    report = asyncio.run(run(endpoints.read(data)))
    report.show()
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(exit_code(report))


def register(app: typer.Typer) -> None:
    app.command()(verify)
