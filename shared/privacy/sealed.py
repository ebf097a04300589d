"""Encrypts the fields that hold personal data (AES-256-GCM), in events and in tables."""

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
    """A sealed field was changed, was moved to another dossier or field, or has a key that this service lacks."""


class Sealer:
    """Seals and opens JSON values. A sealed value opens only for the dossier and the field that it was sealed for."""

    def __init__(self, keys: str) -> None:
        """`keys`: `id:base64-of-32-bytes[,…]`. The first key seals, all keys open. Raises ValueError."""
        self._keys: dict[str, AESGCM] = {}
        for part in keys.split(","):
            name, _, encoded = part.strip().partition(":")
            raw = base64.b64decode(encoded, validate=True)
            if not name or "." in name or len(raw) != 32:
                raise ValueError("a seal key is written id:base64 of 32 bytes, the id without a dot")
            self._keys[name] = AESGCM(raw)
        self._first = next(iter(self._keys))

    def seal(self, dossier_id: UUID, field: str, value: Any) -> str:
        """`key id.base64 of nonce and ciphertext`."""
        nonce = os.urandom(NONCE)
        box = nonce + self._keys[self._first].encrypt(nonce, _plain(value), _bound(dossier_id, field))
        return f"{self._first}.{base64.b64encode(box).decode()}"

    def open(self, dossier_id: UUID, field: str, sealed: str) -> Any:
        """The value that was sealed. Raises Tampered."""
        name, _, encoded = sealed.partition(".")
        key = self._keys.get(name)
        if key is None:
            raise Tampered("this service does not hold the key of the sealed field")
        try:
            box = base64.b64decode(encoded, validate=True)
            return json.loads(key.decrypt(box[:NONCE], box[NONCE:], _bound(dossier_id, field)))
        except (InvalidTag, ValueError) as error:
            raise Tampered("the sealed field does not open for this dossier") from error


def _plain(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a number beyond 64 bits, for example
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _bound(dossier_id: UUID, field: str) -> bytes:
    return dossier_id.bytes + field.encode()
