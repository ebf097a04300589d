"""The data folder: private, used by one stack at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from deploy.local.trouble import Trouble


def claim(folder: Path) -> IO[str]:
    """Create the folder if it is missing and lock it until the returned file is closed or this process ends.

    Raises Trouble: the folder is not writable, or another stack uses it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "logs").mkdir(mode=0o700, exist_ok=True)
        lock = (folder / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise Trouble(
            f"Không ghi được vào thư mục dữ liệu {folder}: {error.strerror}. Hãy chọn thư mục khác bằng --data.",
            f"Cannot write to the data folder {folder}: {error.strerror}. Choose another one with --data.",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "?"
        lock.close()
        raise Trouble(
            f"Một hoso khác (tiến trình {holder}) đang chạy với dữ liệu ở {folder}. "
            f"Hãy dừng nó trước, hoặc dùng --data khác.",
            f"Another hoso (process {holder}) uses the data in {folder}. Stop it first, or use another --data.",
        ) from None
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
