"""The schedule of blows: kind, target and time, from a seed alone. The same seed gives the same schedule. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

SERVICES = ("intake", "workflow", "idlookup", "notify")
OWN = {
    "intake": ("intake-before-commit", "intake-after-commit"),
    "workflow": (),
    "idlookup": ("idlookup-before-call", "idlookup-after-answer", "idlookup-before-commit"),
    "notify": ("notify-before-send", "notify-after-send"),
}
CONSUMER = ("consumer-before-stage", "consumer-before-commit", "consumer-after-commit")
RELAY = ("relay-before-send", "relay-after-send", "relay-after-cursor")

KINDS = {
    "die-at": 34,  # SIGKILL at a fault point
    "kill": 24,
    "freeze": 12,
    "restart": 8,  # a clean stop and a start
    "broker": 5,  # killed; the embedded broker loses everything
    "postgres": 4,  # killed
    "outside": 4,  # the registry simulator or the SMS gateway is killed
    "instance": 5,  # add a process of a service, or remove it
    "registry": 6,  # loses answers, hangs, is down or slow
    "sms": 3,
}
"""Kind of blow -> its weight."""
TARGETS = (*SERVICES, "broker", "postgres", "registry", "sms")
EXTRA_DEATHS = 0.5
"""Until every fault point has come once, this share of the blows is turned into "die-at": short campaigns reach all."""
LONG_FREEZE_SHARE, LONG_FREEZE_S = 0.25, (15.0, 40.0)
"""In long campaigns this share of the freezes is longer than a Kafka session (10 s) and a lease (6 s)."""
FIRST_WIPE, WIPE_SHARE = 6, 0.2
"""The first wipe comes after this many blows; later ones follow this share of the blows against the broker."""
REGISTRY = (
    {"lost_answer_rate": 0.5},
    {"hang": True},
    {"down": True},
    {"error_rate": 0.5, "lost_answer_rate": 0.2},
    {"latency_p50_s": 2.0, "latency_p95_s": 6.0},
)
GATEWAY = ({"lost_answer_rate": 0.5}, {"hang": True}, {"down": True}, {"error_rate": 0.5})


class Step(NamedTuple):
    """A fault point in one service."""

    service: str
    point: str


@dataclass(frozen=True, slots=True)
class Blow:
    """`pause_s`: wait before it; `lasts_s`: length of a freeze or of a simulator's faults. Wall seconds."""

    pause_s: float
    kind: str
    target: str
    point: str = ""
    lasts_s: float = 0.0
    settings: tuple[tuple[str, float | bool], ...] = ()

    def __str__(self) -> str:
        words = [self.kind, self.target, self.point, *(f"{name}={value}" for name, value in self.settings)]
        return " ".join(word for word in words if word) + (f" {self.lasts_s:.1f} s" if self.lasts_s else "")


def steps() -> list[Step]:
    """Return every fault point of every service."""
    consumers = [Step(service, point) for service in SERVICES if service != "intake" for point in CONSUMER]
    relays = [Step(service, point) for service in SERVICES for point in RELAY]
    return [Step(service, point) for service in SERVICES for point in OWN[service]] + consumers + relays


def blows(seed: int, *, long: bool = False, wipes: bool = False) -> Iterator[Blow]:
    """Yield blows without end. Every fault point comes once, in one of its services, before any step comes again.

    In a `long` campaign some freezes outlast every session and lease: the process continues without its partitions
    and leases. With `wipes` a real Kafka loses everything, early once and sometimes later.
    """
    chance = random.Random(f"wipes {seed}")
    for number, blow in enumerate(_blows(seed, long), 1):
        yield blow
        if wipes and (number == FIRST_WIPE or (blow.target == "broker" and chance.random() < WIPE_SHARE)):
            yield Blow(round(chance.uniform(0.1, 1.5), 2), "wipe", "broker")


def _blows(seed: int, long: bool) -> Iterator[Blow]:
    chance = random.Random(seed)
    left = _one_each(chance)
    first = True
    while True:
        kind = chance.choices(list(KINDS), weights=list(KINDS.values()))[0]
        if first and chance.random() < EXTRA_DEATHS:
            kind = "die-at"
        pause_s, lasts_s = round(chance.uniform(0.1, 1.5), 2), round(chance.uniform(0.5, 6.0), 1)
        target = chance.choice(SERVICES)
        settings = chance.choice(REGISTRY if kind == "registry" else GATEWAY)
        any_target, outside = chance.choice(TARGETS), chance.choice(("registry", "sms"))
        if kind == "die-at":
            if not left:
                left = steps()
                chance.shuffle(left)
            target, point = left.pop()
            first = first and bool(left)
            yield Blow(pause_s, kind, target, point)
        elif kind == "freeze":
            if long and chance.random() < LONG_FREEZE_SHARE:
                lasts_s = round(chance.uniform(*LONG_FREEZE_S), 1)
            yield Blow(pause_s, kind, any_target, lasts_s=lasts_s)
        elif kind == "restart":
            yield Blow(pause_s, kind, any_target)
        elif kind in ("broker", "postgres", "outside"):
            yield Blow(pause_s, "kill", outside if kind == "outside" else kind)
        elif kind in ("registry", "sms"):
            yield Blow(pause_s, "weather", kind, lasts_s=lasts_s, settings=tuple(settings.items()))
        else:
            yield Blow(pause_s, kind, target)


def _one_each(chance: random.Random) -> list[Step]:
    """Return every fault point once, in one of the services that reach it."""
    shuffled = steps()
    chance.shuffle(shuffled)
    by_point = {step.point: step for step in shuffled}
    return list(by_point.values())
