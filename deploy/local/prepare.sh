#!/bin/sh
# Makes .venv with exactly the locked packages, and .venv/bin/hoso. Called by make; PYTHON=… chooses the Python.
# Chuẩn bị .venv với đúng các gói đã khoá, và lệnh .venv/bin/hoso.
set -eu
cd "$(dirname "$0")/../.."

say() {
    printf '%s\n' "$@" >&2
}

# False for an older Python, or for a command that is not a Python (for example a pyenv shim without one).
is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

can_make_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

find_python() {
    without_venv=""
    for candidate in ${PYTHON:+"$PYTHON"} python3.14 python3.13 python3.12 python3.11 python3; do
        if command -v "$candidate" >/dev/null 2>&1 && is_recent "$candidate"; then
            if can_make_venv "$candidate"; then
                echo "$candidate"
                return
            fi
            without_venv=${without_venv:-$candidate}
        fi
    done
    if [ -n "$without_venv" ]; then
        package="python$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
        say "$without_venv thiếu mô-đun venv/ensurepip. Trên Debian/Ubuntu: apt install $package" \
            "$without_venv lacks venv/ensurepip. On Debian/Ubuntu: apt install $package"
    else
        say "Cần Python 3.11 trở lên nhưng không tìm thấy. Trên Debian/Ubuntu: apt install python3 python3-venv" \
            "Python 3.11 or later was not found. On Debian/Ubuntu: apt install python3 python3-venv" \
            "(make PYTHON=/path/to/python3 …)"
    fi
    exit 1
}

if ! { [ -x .venv/bin/python ] && is_recent .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    python=$(find_python)
    say "Tạo môi trường ảo .venv bằng $python… / Making .venv with $python…"
    "$python" -m venv --clear .venv
fi

say "Cài các gói đã khoá (lần đầu mất vài phút)… / Installing the locked packages (a few minutes the first time)…"
if ! .venv/bin/python -m pip install --disable-pip-version-check --no-input --require-hashes -r requirements/dev.lock; then
    say "Không cài được gói: xem lỗi của pip ở trên; có kết nối tới kho gói không?" \
        "The packages could not be installed: see pip's error above. Is the package index reachable?"
    exit 1
fi

# The .pth file lets .venv/bin/python find the sources. The command hoso finds them even after the folder is moved.
.venv/bin/python - <<'PYTHON'
import pathlib, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "hoso.pth").write_text(f"{pathlib.Path.cwd()}\n", encoding="utf-8")
PYTHON
cat >.venv/bin/hoso <<'SHELL'
#!/bin/sh
here=$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "$0")")/../.." && pwd -P) || exit 1
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONUTF8=1 exec "$here/.venv/bin/python" -P -m deploy.local.cli "$@"
SHELL
chmod 755 .venv/bin/hoso
cp requirements/dev.lock .venv/installed.lock
