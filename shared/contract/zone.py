"""The zone of office time. The facts and `shared.clock` use the same object, so that comparing zones is quick."""

from __future__ import annotations

from datetime import timedelta, timezone

VIETNAM = timezone(timedelta(hours=7))
"""Vietnam has one zone and no summer time; no zone database is needed."""
