"""`hoso parked`: lists, shows, replays and discards the parked records of all services."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.local import endpoints
from deploy.local.call import call
from deploy.local.commands import options
from deploy.local.trouble import Trouble, tell
from shared.clock import VIETNAM

PAGE = 1000

group = typer.Typer(
    help="Bản ghi bị để riêng: xem, chạy lại, bỏ. / Records put aside: look, replay, discard.", no_args_is_help=True
)
Parked = Annotated[str, typer.Argument(metavar="SERVICE:ID", help="Như `list` đã ghi. / As `list` shows it.")]


@group.command("list")
def list_parked(
    data: options.Data = options.DATA,
    limit: Annotated[
        int, typer.Option(min=1, help="Nhiều nhất bao nhiêu mỗi dịch vụ. / At most this many per service.")
    ] = 100,
) -> None:
    """Liệt kê, cũ nhất trước. / List them, oldest first."""
    known = endpoints.read(data)
    table = Table()
    for heading in ("id\nsố / sequence", "chủ đề / topic\nhồ sơ / dossier", "lý do / reason\ntừ lúc / parked at"):
        table.add_column(heading)
    has_silent_service = False
    for service in endpoints.SERVICES:
        try:
            rows, more = _all(known, service, limit)
        except Trouble as trouble:
            has_silent_service = True
            tell(trouble)
            continue
        for row in rows:
            table.add_row(*_cells(service, row))
        if more:
            table.add_row(f"{service}:…", f"--limit {limit}")
    if table.row_count:
        Console().print(table)
    elif not has_silent_service:
        print("Không có bản ghi nào bị để riêng. / Nothing is parked.")
    if has_silent_service:
        raise typer.Exit(1)


@group.command()
def show(parked: Parked, data: options.Data = options.DATA) -> None:
    """Một bản ghi: vì sao, và bao nhiêu bản chờ sau nó. / One record: its reason, and how many wait behind it."""
    known = endpoints.read(data)
    service, number = _split(parked)
    row = call(known[service], f"/v1/parked/{number}", token=known["tokens"]["ops"])
    table = Table(show_header=False)
    for name, value in row.items():
        table.add_row(name, escape("" if value is None else str(value)))
    Console().print(table)


@group.command()
def replay(parked: Parked, data: options.Data = options.DATA) -> None:
    """Áp dụng lại đúng chỗ của nó, rồi những bản chờ sau. / Apply it in its order, then the records behind it."""
    known = endpoints.read(data)
    service, number = _split(parked)
    call(known[service], f"/v1/parked/{number}/replay", token=known["tokens"]["ops"], method="POST", timeout=60)
    print(f"{parked}: đã áp dụng. / replayed.")


@group.command()
def discard(
    parked: Parked,
    reason: Annotated[str, typer.Option("--reason", help="Vì sao bỏ (được lưu). / Why (the reason is stored).")],
    data: options.Data = options.DATA,
) -> None:
    """Hồ sơ đi tiếp không có bản ghi này. / Let its dossier continue without this record."""
    known = endpoints.read(data)
    service, number = _split(parked)
    call(
        known[service],
        f"/v1/parked/{number}/discard",
        token=known["tokens"]["ops"],
        method="POST",
        body={"reason": reason},
        timeout=60,
    )
    print(f"{parked}: đã bỏ. / discarded.")


def _all(known: dict[str, Any], service: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """Fetch up to `limit` rows, page by page. Returns the rows and whether there are more."""
    rows: list[dict[str, Any]] = []
    after: str | None = None
    while len(rows) < limit:
        query: dict[str, Any] = {"limit": min(limit - len(rows), PAGE), **({"after": after} if after else {})}
        page = call(known[service], "/v1/parked", token=known["tokens"]["ops"], query=query)
        rows += page["items"]
        after = page.get("next")
        if after is None:
            return rows, False
    return rows, True


def _cells(service: str, row: dict[str, Any]) -> list[str]:
    """Return three cells of two lines each, so that the table stays within 80 columns."""
    text = {key: "" if value is None else escape(str(value)) for key, value in row.items()}
    if row.get("parked_at"):
        text["parked_at"] = f"{datetime.fromisoformat(row['parked_at']).astimezone(VIETNAM):%d/%m/%Y %H:%M:%S}"
    pairs = (("topic", "dossier_id"), ("reason", "parked_at"))
    return [
        f"{service}:{row['id']}\n{text.get('sequence', '')}",
        *(f"{text.get(above, '')}\n{text.get(below, '')}" for above, below in pairs),
    ]


def _split(parked: str) -> tuple[str, int]:
    service, _, number = parked.partition(":")
    if service not in endpoints.SERVICES or not (number.isascii() and number.isdigit()):
        raise typer.BadParameter(
            f"{parked!r}: cần dạng DỊCH_VỤ:SỐ, như `hoso parked list` ghi. / SERVICE:ID, as `hoso parked list` shows."
        )
    return service, int(number)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="parked")
