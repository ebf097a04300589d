"""Reads DIR/endpoints.json: the addresses of a running stack. The file is private: it holds tokens and passwords."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.local.trouble import Trouble

SERVICES = ("intake", "workflow", "idlookup", "notify")


def read(folder: Path) -> dict[str, Any]:
    """Return the endpoints of the stack that runs on `folder`. Raises Trouble when no stack runs."""
    try:
        known = json.loads((folder / "endpoints.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Trouble(
            f"Chưa có hệ thống nào chạy với dữ liệu ở {folder}. Hãy chạy `make up`, hoặc chỉ thư mục khác bằng --data.",
            f"No stack runs on the data in {folder}. Run `make up`, or name another folder with --data.",
        ) from None
    except (OSError, ValueError) as error:
        raise Trouble(
            f"Không đọc được {folder / 'endpoints.json'}: {error}.",
            f"Cannot read {folder / 'endpoints.json'}: {error}.",
        ) from error
    if not isinstance(known, dict):
        raise Trouble(f"{folder / 'endpoints.json'} bị hỏng.", f"{folder / 'endpoints.json'} is broken.")
    return known
