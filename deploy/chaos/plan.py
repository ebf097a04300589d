"""What is done to whom and when, from a seed alone: the same seed is the same schedule. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

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
    "die-at": 34,  # at a named step, by kill -9
    "kill": 24,
    "freeze": 12,
    "restart": 8,  # stopped in order and started again
    "broker": 5,  # killed; the embedded one forgets everything
    "postgres": 4,  # killed
    "outside": 4,  # the registry simulator or the SMS gateway, killed
    "instance": 5,  # one more process of a service, or one less
    "registry": 6,  # loses answers, hangs, is down, is slow
    "sms": 3,
}
"""Kind of blow -> its weight."""
EVERYBODY = (*SERVICES, "broker", "postgres", "registry", "sms")
HURRY = 0.5
"""Until every fault point has had its turn, this share of blows more is for them, so that short campaigns reach all."""
OUTLASTS, OUTLASTING_S = 0.25, (15.0, 40.0)
"""In long campaigns, this share of the freezes lasts longer than a session (10 s on Kafka) and a lease (6 s)."""
FIRST_WIPE, WIPED = 6, 0.2
"""After so many blows, and after this share of those that strike the broker."""
REGISTRY = (
    {"lost_answer_rate": 0.5},
    {"hang": True},
    {"down": True},
    {"error_rate": 0.5, "lost_answer_rate": 0.2},
    {"latency_p50_s": 2.0, "latency_p95_s": 6.0},
)
GATEWAY = ({"lost_answer_rate": 0.5}, {"hang": True}, {"down": True}, {"error_rate": 0.5})


@dataclass(frozen=True, slots=True)
class Blow:
    """`pause_s` is waited before it; `lasts_s` how long a freeze or bad weather stays. Wall seconds."""

    pause_s: float
    kind: str
    target: str
    point: str = ""
    lasts_s: float = 0.0
    weather: tuple[tuple[str, float | bool], ...] = ()

    def __str__(self) -> str:
        said = [self.kind, self.target, self.point, *(f"{name}={value}" for name, value in self.weather)]
        return " ".join(word for word in said if word) + (f" {self.lasts_s:.1f} s" if self.lasts_s else "")


def steps() -> list[tuple[str, str]]:
    """(service, fault point): every step at which a process of that service can be ended."""
    readers = [(service, point) for service in SERVICES if service != "intake" for point in CONSUMER]
    senders = [(service, point) for service in SERVICES for point in RELAY]
    return [(service, point) for service in SERVICES for point in OWN[service]] + readers + senders


def blows(seed: int, *, long: bool = False, wipes: bool = False) -> Iterator[Blow]:
    """Without end. Every fault point comes once, in one of its services, before any step comes again.

    In a `long` campaign some freezes outlast every session and lease, so that a process wakes up dispossessed. With
    `wipes` a real Kafka loses everything, once early and then now and then, as the embedded one does at every death.
    """
    chance = random.Random(f"wipes {seed}")
    for number, blow in enumerate(_blows(seed, long), 1):
        yield blow
        if wipes and (number == FIRST_WIPE or (blow.target == "broker" and chance.random() < WIPED)):
            yield Blow(round(chance.uniform(0.1, 1.5), 2), "wipe", "broker")


def _blows(seed: int, long: bool) -> Iterator[Blow]:
    chance = random.Random(seed)
    left = _one_each(chance)
    first = True
    while True:
        kind = chance.choices(list(KINDS), weights=list(KINDS.values()))[0]
        if first and chance.random() < HURRY:
            kind = "die-at"
        pause_s, lasts_s = round(chance.uniform(0.1, 1.5), 2), round(chance.uniform(0.5, 6.0), 1)
        target = chance.choice(SERVICES)
        weather = chance.choice(REGISTRY if kind == "registry" else GATEWAY)
        anybody, outside = chance.choice(EVERYBODY), chance.choice(("registry", "sms"))
        if kind == "die-at":
            if not left:
                left = steps()
                chance.shuffle(left)
            target, point = left.pop()
            first = first and bool(left)
            yield Blow(pause_s, kind, target, point)
        elif kind == "freeze":
            if long and chance.random() < OUTLASTS:
                lasts_s = round(chance.uniform(*OUTLASTING_S), 1)
            yield Blow(pause_s, kind, anybody, lasts_s=lasts_s)
        elif kind == "restart":
            yield Blow(pause_s, kind, anybody)
        elif kind in ("broker", "postgres", "outside"):
            yield Blow(pause_s, "kill", outside if kind == "outside" else kind)
        elif kind in ("registry", "sms"):
            yield Blow(pause_s, "weather", kind, lasts_s=lasts_s, weather=tuple(weather.items()))
        else:
            yield Blow(pause_s, kind, target)


def _one_each(chance: random.Random) -> list[tuple[str, str]]:
    """Every fault point once, each in one of the services that pass it."""
    every = steps()
    chance.shuffle(every)
    found = {point: (service, point) for service, point in every}
    return list(found.values())
