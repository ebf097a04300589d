"""The contents of a dossier's components: streamed in pieces, checked against their hashes, published when whole."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Request

from services.intake import store
from services.intake.app import IntakeApp
from services.intake.callers import REQUESTERS, Secret, caller_or_secret, unknown_dossier
from services.intake.models import ContentStored
from shared.contract.envelope import new_id
from shared.contract.events import ComponentStored
from shared.http.body import int_or_zero, refuse_compressed
from shared.http.openapi import describe
from shared.http.problems import Problem, not_found

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx

BINARY = {"type": "string", "format": "binary"}
MEDIA_TYPES = ("application/pdf", "application/octet-stream", "image/jpeg", "image/png", "image/tiff")
LIMIT = 50 * 1024 * 1024
"""Bytes of one component's content."""
PIECE = 256 * 1024
"""Bytes of one row of `content_pieces`."""
CONTENT_DIGEST = re.compile(r"(?:^|[,\s])sha-256=:([A-Za-z0-9+/=]*):")
SHA256 = re.compile(r"^[0-9a-f]{64}$")


class HashHeaders(NamedTuple):
    """The headers that may carry the content's SHA-256; empty where they are missing."""

    content_sha256: str
    content_digest: str


async def _hash_headers(
    content_sha256: Annotated[str, Header(alias="Content-SHA256", description="SHA-256 of the content, in hex.")] = "",
    content_digest: Annotated[
        str, Header(alias="Content-Digest", description="RFC 9530; of its digests `sha-256` is read.")
    ] = "",
) -> HashHeaders:
    # Async, because FastAPI runs sync dependencies in a thread.
    return HashHeaders(content_sha256, content_digest)


class StoredPieces(NamedTuple):
    """An upload whose pieces are stored: SHA-256 in hex, size in bytes."""

    sha256: str
    size: int


def router(app: IntakeApp) -> APIRouter:
    """`PUT /v1/dossiers/{id}/components/{code}/content`."""
    routes = APIRouter(prefix="/v1/dossiers", tags=["dossiers"])

    @routes.put(
        "/{dossier_id}/components/{code}/content",
        status_code=201,
        response_model=ContentStored,
        openapi_extra=describe(
            body=BINARY,
            media=MEDIA_TYPES,
            problems={
                400: ["malformed-hash", "interrupted"],
                404: ["unknown-dossier", "unknown-component"],
                413: ["too-large"],
                415: ["wrong-content-type", "wrong-content-encoding"],
                422: ["empty-content", "hash-differs"],
            },
            roles=REQUESTERS,
            secret=True,
        ),
    )
    async def put_content(
        request: Request,
        dossier_id: UUID,
        code: Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,60}$", description="The component's code.")],
        secret: Secret = None,
        headers: HashHeaders = Depends(_hash_headers),
    ) -> dict[str, Any]:
        """Store a component's content; it replaces an earlier one.

        Its SHA-256 must be the one announced with the component (`sha256`), and the one sent in a header. Otherwise
        nothing is stored.
        """
        caller_or_secret(app, request, dossier_id, secret, *REQUESTERS)
        refuse_compressed(request)
        media_type = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
        if media_type not in MEDIA_TYPES:
            raise Problem(
                415,
                "wrong-content-type",
                vi="Chỉ nhận PDF, JPEG, PNG, TIFF hoặc application/octet-stream.",
                en="Only PDF, JPEG, PNG, TIFF or application/octet-stream.",
            )
        sent_hash = _sent_hash(headers)
        if int_or_zero(request.headers.get("content-length")) > LIMIT:
            raise _too_large()
        pool = app.service.pool()
        async with pool.acquire() as tx:
            announced = await _announced_hash(tx, dossier_id, code)
        upload_id = new_id()
        try:
            stored = await _store_pieces(request, pool, upload_id)
            if stored.size == 0:
                raise Problem(
                    422, "empty-content", vi="Tệp rỗng; chưa lưu gì.", en="The file is empty; nothing was stored."
                )
            if {sent_hash, announced} - {None, stored.sha256}:
                raise Problem(
                    422,
                    "hash-differs",
                    vi="Nội dung nhận được không khớp mã băm; chưa lưu gì.",
                    en="The content received does not match its hash; nothing was stored.",
                )
        except BaseException:
            await asyncio.shield(store.drop_upload(pool, upload_id))
            raise
        upload = store.Upload(upload_id, bytes.fromhex(stored.sha256), stored.size, media_type)
        async with app.delivery.outbox.transaction() as transaction:
            submission = await store.lock_submission(transaction.tx, dossier_id)
            if await store.set_content(transaction.tx, dossier_id, code, upload):
                fact = ComponentStored(
                    office_at=app.service.office.now(), component_code=code, sha256=stored.sha256, size=stored.size
                )
                transaction.append([await store.next_event(transaction.tx, submission, fact)])
        return {"dossier_id": dossier_id, "code": code, **stored._asdict()}

    return routes


async def _announced_hash(tx: Tx, dossier_id: UUID, code: str) -> str | None:
    """The SHA-256 that the component was announced with, in hex. Raises Problem 404."""
    submission = await store.find_submission(tx, dossier_id)
    if submission is None:
        raise unknown_dossier()
    components = await store.list_components(tx, submission)
    if code not in components:
        raise not_found("Hồ sơ không có thành phần này.", "The dossier has no such component.", "unknown-component")
    return components[code]


def _sent_hash(headers: HashHeaders) -> str | None:
    """The SHA-256 sent with the content, in hex; None when none is sent. Raises Problem 400 for a malformed one."""
    plain = headers.content_sha256.strip().lower()
    if plain:
        if SHA256.match(plain):
            return plain
        raise _malformed_hash()
    match = CONTENT_DIGEST.search(headers.content_digest)
    if match is None:
        return None
    try:
        raw = base64.b64decode(match[1], validate=True)
    except ValueError:
        raise _malformed_hash() from None
    if len(raw) != 32:
        raise _malformed_hash()
    return raw.hex()


def _malformed_hash() -> Problem:
    return Problem(
        400,
        "malformed-hash",
        vi="Mã băm gửi kèm không phải SHA-256.",
        en="The hash sent with the content is not a SHA-256.",
    )


async def _store_pieces(request: Request, pool: Pool, upload_id: UUID) -> StoredPieces:
    """Store the body piece by piece as it arrives. Raises Problem 413 when it is larger than LIMIT."""
    whole, size, number, piece = hashlib.sha256(), 0, 0, bytearray()
    async for part in request.stream():
        whole.update(part)
        size += len(part)
        if size > LIMIT:
            raise _too_large()
        piece += part
        while len(piece) >= PIECE:
            await store.add_piece(pool, upload_id, number, bytes(piece[:PIECE]))
            del piece[:PIECE]
            number += 1
    if piece:
        await store.add_piece(pool, upload_id, number, bytes(piece))
    return StoredPieces(whole.hexdigest(), size)


def _too_large() -> Problem:
    return Problem(413, "too-large", vi="Tệp quá 50 MiB.", en="The file is larger than 50 MiB.")
