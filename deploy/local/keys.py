"""The stack's secrets: made once and kept in DIR/secrets.json, readable only by its owner."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.local.trouble import Trouble


def write_private(path: Path, content: Any) -> None:
    """Write `content` as JSON with mode 0600, atomically: a reader sees the old file or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as target:
            json.dump(content, target, ensure_ascii=False, indent=1)
            target.write("\n")
            target.flush()
            os.fsync(target.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


class Keys:
    """Named secrets in one private file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def get(self, name: str, make: Callable[[], str]) -> str:
        """Return the secret `name`; the first call makes and stores it. Raises Trouble when the file is broken."""
        with self._lock:
            known = self._read()
            if name not in known:
                known[name] = make()
                write_private(self.path, known)
            return known[name]

    def _read(self) -> dict[str, str]:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise Trouble(
                f"Không đọc được {self.path}: {error}. Hãy khôi phục tệp này từ bản sao lưu.",
                f"Cannot read {self.path}: {error}. Restore it from a backup.",
            ) from error
        return {str(key): str(value) for key, value in known.items()}
