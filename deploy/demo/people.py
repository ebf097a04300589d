"""Synthetic applicants: a submission is the procedure's own example with another person in it."""

from __future__ import annotations

import copy
import random
from typing import Any

from deploy.demo.week import Arrival

FAMILY = ("Nguyễn", "Trần", "Lê", "Phạm", "Hoàng", "Vũ", "Đặng", "Bùi", "Đỗ", "Hà")
MIDDLE = ("Văn", "Thị", "Minh", "Thu", "Đức", "Ngọc", "Quang", "Hồng")
GIVEN = ("An", "Bình", "Chi", "Dũng", "Giang", "Hạnh", "Khánh", "Lan", "Mai", "Nam", "Oanh", "Phúc", "Sơn", "Tú")
AREAS = tuple(f"Khu {number}" for number in range(1, 19))


def body(example: dict[str, Any], arrival: Arrival, agency: str) -> dict[str, Any]:
    """A submission that intake accepts. The person in it does not exist."""
    chance = random.Random(arrival.seed)
    submission = copy.deepcopy(example)
    submission["receiving_agency"] = agency
    submission["residential_area"] = chance.choice(AREAS)
    submission["channel"] = {"assisted": "online", "direct": "direct", "online": "online", "post": "post"}[
        arrival.channel
    ]
    submission.pop("assisted_by", None)
    if arrival.channel == "assisted":
        submission["assisted_by"] = {"kind": "officer", "ref": f"quay-{arrival.seed % 4 + 1}"}
    person = submission["applicant"]
    year = chance.randint(1955, 1999)
    person["full_name"] = _name(chance)
    person["birth_date"] = f"{year}-{chance.randint(1, 12):02d}-{chance.randint(1, 28):02d}"
    if "personal_id" in person:
        # There is no province 000. The simulator answers `mismatch` for a number that ends in 00.
        person["personal_id"] = (
            f"000{chance.randint(0, 1)}{year % 100:02d}{chance.randint(10, 999_998) // 7 * 7 + 1:06d}"
        )
    if chance.random() < 0.93:
        person["phone"] = f"09{arrival.seed % 100_000_000:08d}"
    else:
        person.pop("phone", None)
    child = submission["subject"].get("child")
    if isinstance(child, dict):
        child["full_name"] = f"{_name(chance)} {arrival.seed}".translate(str.maketrans("0123456789", "abcdeghikl"))
    return submission


def _name(chance: random.Random) -> str:
    return f"{chance.choice(FAMILY)} {chance.choice(MIDDLE)} {chance.choice(GIVEN)}"
