"""`python -m deploy.docs.due CODE MOMENT`: what `GET /v1/due` answers by the shipped procedures and calendar, as JSON.

A program of its own because it reads the rules, which those who run the stack may not: `hoso due` starts it when no
stack runs. An unknown procedure or a moment outside 2000 to 2090 is `null`.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from services.workflow.clock.calendar import WorkingCalendar
from services.workflow.clock.deadlines import explain
from services.workflow.procedures import shipped


def worked_out(code: str, received: datetime) -> dict[str, Any] | None:
    """The due time, with each day counted and why; `received` has a zone."""
    procedure = shipped().get(code)
    if procedure is None or not 2000 <= received.year <= 2090:
        return None
    explanation = explain(WorkingCalendar(), received, procedure.time)
    days = [
        {
            "date": day.date.isoformat(),
            "counted": bool(day.number),
            "number": day.number,
            "why": day.vi,
            "why_en": day.en,
        }
        for day in explanation.days
    ]
    return {"procedure_code": code, "due_at": explanation.due_office_at.isoformat(), "days": days}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(worked_out(sys.argv[1], datetime.fromisoformat(sys.argv[2]))))
