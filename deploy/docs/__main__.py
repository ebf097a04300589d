"""`python -m deploy.docs` writes the generated documents; with `--check` it only says which are not current."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

from deploy.docs import access, api, asyncapi, events, schemas

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = "docs/schemas"


def documents() -> dict[str, str]:
    """Path below the project's root -> text."""
    return {
        "docs/events.md": events.page(),
        "docs/asyncapi.json": asyncapi.asyncapi(),
        "docs/roles.md": access.page(),
        **{f"docs/api/{name}.json": text for name, text in api.documents().items()},
        **{f"{SCHEMAS}/{name}.json": text for name, text in schemas.schemas().items()},
    }


def left_over(current: Collection[str]) -> list[str]:
    """Schema files of facts that are no more."""
    return sorted(name for file in (ROOT / SCHEMAS).glob("*.json") if (name := f"{SCHEMAS}/{file.name}") not in current)


def main() -> int:
    wanted = documents()
    stale = left_over(wanted)
    if "--check" not in sys.argv:
        for name in stale:
            (ROOT / name).unlink()
    for name, text in wanted.items():
        file = ROOT / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and stale:
        sys.stderr.write(f"not current: {', '.join(stale)}; run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
