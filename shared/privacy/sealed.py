"""Personal data as it travels and rests: encrypted fields (AES-256-GCM) that only the holder of the key can open."""

from __future__ import annotations

import base64
import json
import os
from typing import Any
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12


class Tampered(ValueError):
    """A sealed field was changed, moved to another dossier or field, or made with a key we do not hold."""


class Sealer:
    """Seals and opens JSON values. A sealed field is bound to its dossier and its name: it opens nowhere else."""

    def __init__(self, keys: str) -> None:
        """`keys`: `id:base64-of-32-bytes[,…]`; the first seals, all open. Raises ValueError on anything else."""
        self._keys: dict[str, AESGCM] = {}
        for part in keys.split(","):
            name, _, encoded = part.strip().partition(":")
            raw = base64.b64decode(encoded, validate=True)
            if not name or "." in name or len(raw) != 32:
                raise ValueError("a seal key is written id:base64 of 32 bytes, the id without a dot")
            self._keys[name] = AESGCM(raw)
        self._first = next(iter(self._keys))

    def seal(self, dossier_id: UUID, field: str, value: Any) -> str:
        nonce = os.urandom(NONCE)
        box = nonce + self._keys[self._first].encrypt(nonce, _plain(value), _bound(dossier_id, field))
        return f"{self._first}.{base64.b64encode(box).decode()}"

    def open(self, dossier_id: UUID, field: str, sealed: str) -> Any:
        """The value as sealed. Raises Tampered."""
        name, _, encoded = sealed.partition(".")
        key = self._keys.get(name)
        if key is None:
            raise Tampered("sealed with a key that is not held here")
        try:
            box = base64.b64decode(encoded, validate=True)
            return json.loads(key.decrypt(box[:NONCE], box[NONCE:], _bound(dossier_id, field)))
        except (InvalidTag, ValueError) as broken:
            raise Tampered("the sealed field does not open for this dossier") from broken


def _plain(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a number beyond 64 bits, for example
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _bound(dossier_id: UUID, field: str) -> bytes:
    return dossier_id.bytes + field.encode()
