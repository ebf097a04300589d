"""The stack's secrets: made once, kept in DIR/secrets.json where only its owner may read."""

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
    """Write JSON with mode 0600; a reader sees the old file or the new one, never half of one."""
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
    """Named secrets in one private file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def get(self, name: str, make: Callable[[], str]) -> str:
        """The secret called `name`; made by `make` and kept the first time. Raises Trouble for a broken file."""
        with self._lock:
            known = self._read()
            if name not in known:
                known[name] = make()
                write_private(self.path, known)
            return known[name]

    def find(self, name: str) -> str | None:
        return self._read().get(name)

    def _read(self) -> dict[str, str]:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise Trouble(
                f"Không đọc được {self.path}: {error}. Hãy khôi phục tệp này từ bản sao lưu.",
                f"{self.path} cannot be read: {error}. Restore it from a backup.",
            ) from error
        return {str(key): str(value) for key, value in known.items()}
