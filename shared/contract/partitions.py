"""Lanes: a lane has the number of a partition of every topic. A dossier's id gives its lane."""

from __future__ import annotations

import random
import struct
from functools import lru_cache
from uuid import UUID

from aiokafka.partitioner import murmur2

from shared.contract.envelope import new_id, uuid_of
from shared.contract.events import PARTITIONS

STAY_S = 0.05
"""Seconds in which new dossiers get the same lane: a few batches of a busy service."""
ID_BYTES = 36
"""Length of an id's text: nine words of murmur2."""
_words = struct.Struct("<9I").unpack
_SEED = 0x9747B28C ^ ID_BYTES
_M = 0x5BD1E995


@lru_cache(maxsize=65_536)
def lane_of(key: str) -> int:
    """The lane of a record key, equal to its partition: murmur2 as Java clients compute it."""
    data = key.encode()
    murmur = _finished(_mixed(_SEED, *_words(data))) if len(data) == ID_BYTES else murmur2(data)
    return int((murmur & 0x7FFFFFFF) % PARTITIONS)


def _mixed(murmur: int, *words: int) -> int:
    """The loop of murmur2, word by word: quicker than the library's, which goes byte by byte."""
    for word in words:
        word = word * _M & 0xFFFFFFFF  # noqa: PLW2901
        murmur = murmur * _M & 0xFFFFFFFF ^ (word ^ word >> 24) * _M & 0xFFFFFFFF
    return murmur


def _finished(murmur: int) -> int:
    murmur = (murmur ^ murmur >> 13) * _M & 0xFFFFFFFF
    return murmur ^ murmur >> 15


_LAST = [int.from_bytes(b"%02x" % byte, "little") << 16 for byte in range(256)]
"""The last byte of an id -> the part of its text's last word that it fills."""


def id_in(lane: int) -> UUID:
    """A new id in that lane: tries one last byte after the other, a dozen on average."""
    while True:
        candidate = new_id()
        *words, last = _words(str(candidate).encode())
        before, last = _mixed(_SEED, *words) * _M & 0xFFFFFFFF, last & 0xFFFF
        first = candidate.bytes[-1]
        for byte in range(first, first + 256):
            word = (last | _LAST[byte & 0xFF]) * _M & 0xFFFFFFFF
            if (_finished(before ^ (word ^ word >> 24) * _M & 0xFFFFFFFF) & 0x7FFFFFFF) % PARTITIONS == lane:
                return uuid_of(candidate.bytes[:-1] + bytes((byte & 0xFF,)))


class DossierIds:
    """Ids for new dossiers. Dossiers that are filed together share a lane; the lanes take turns.

    A batch has a fixed cost on every topic, and dossiers in one lane share their batches (decision 0011). Kafka's
    producers keep records without a key on one partition for a while for the same reason.
    """

    def __init__(self) -> None:
        self._lane, self._until = random.randrange(PARTITIONS), 0.0

    def next(self, now: float) -> UUID:
        """`now`: seconds of a monotonic clock."""
        if now >= self._until:
            self._lane, self._until = (self._lane + 1) % PARTITIONS, now + STAY_S
        return id_in(self._lane)
