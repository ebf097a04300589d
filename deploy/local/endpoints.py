"""DIR/endpoints.json: where everything is, for whoever comes from outside. Private: it holds tokens and passwords."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.local.trouble import Trouble

SERVICES = ("intake", "workflow", "idlookup", "notify")


def read(folder: Path) -> dict[str, Any]:
    """The endpoints of the stack that runs on `folder`. Raises Trouble when none does."""
    try:
        found = json.loads((folder / "endpoints.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Trouble(
            f"Chưa có hệ thống nào chạy với dữ liệu ở {folder}. Hãy chạy `make up`, hoặc chỉ thư mục khác bằng --data.",
            f"No stack runs on the data in {folder}. Run `make up`, or name another folder with --data.",
        ) from None
    except (OSError, ValueError) as error:
        raise Trouble(
            f"Không đọc được {folder / 'endpoints.json'}: {error}.",
            f"{folder / 'endpoints.json'} cannot be read: {error}.",
        ) from error
    if not isinstance(found, dict):
        raise Trouble(f"{folder / 'endpoints.json'} bị hỏng.", f"{folder / 'endpoints.json'} is broken.")
    return found
