"""The files of a dossier: streamed in pieces, checked against their hash, told of once they are whole."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from shared.body import dumps, int_or_zero
from shared.envelope import new_id
from shared.events import ComponentStored
from shared.outbox import stage
from shared.problems import Problem, not_found
from shared.service import Service

from . import store

if TYPE_CHECKING:
    from shared.database import Pool

LIMIT = 50 * 1024 * 1024
"""Bytes of one component's content."""
PIECE = 256 * 1024
TYPES = re.compile(r"^(application/pdf|application/octet-stream|image/(jpeg|png|tiff))$")
SHA256 = re.compile(r"^[0-9a-f]{64}$")


def router(service: Service, who: object) -> APIRouter:
    """`who(service, request, dossier_id, secret, *roles)` is the access check of the other routes."""
    routes = APIRouter(prefix="/v1/dossiers", tags=["dossiers"])

    @routes.put(
        "/{dossier_id}/components/{code}/content",
        status_code=201,
        openapi_extra={"x-roles": ["counter", "system"], "x-secret": True},
    )
    async def put_content(
        request: Request,
        dossier_id: UUID,
        code: Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,60}$")],
        secret: Annotated[str | None, Query()] = None,
    ) -> Response:
        """Store a component's content. Header `Content-SHA256` (hex) is checked; nothing is kept when it differs."""
        who(service, request, dossier_id, secret, "counter", "system")  # type: ignore[operator]
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not TYPES.match(kind):
            raise Problem(
                415,
                "wrong-content-type",
                vi="Chỉ nhận PDF, JPEG, PNG, TIFF hoặc application/octet-stream.",
                en="Only PDF, JPEG, PNG, TIFF or application/octet-stream.",
            )
        promised = request.headers.get("content-sha256", "").lower()
        if not SHA256.match(promised):
            raise Problem(
                400,
                "hash-needed",
                vi="Cần tiêu đề Content-SHA256 (hex).",
                en="The header Content-SHA256 (hex) is needed.",
            )
        if int_or_zero(request.headers.get("content-length")) > LIMIT:
            raise _too_large()
        pool = service.pool()
        async with pool.acquire() as tx:
            _check_component(await store.find_submission(tx, dossier_id), code)
        upload_id = new_id()
        try:
            digest, size = await _store_pieces(request, pool, upload_id)
            if digest != promised:
                raise Problem(
                    422,
                    "hash-differs",
                    vi="Nội dung nhận được không khớp mã băm; chưa lưu gì.",
                    en="The content received does not match its hash; nothing was stored.",
                )
        except BaseException:
            await asyncio.shield(store.drop_upload(pool, upload_id))
            raise
        lanes: set[int] = set()
        async with pool.acquire() as tx, tx.transaction():
            submission = await store.lock_submission(tx, dossier_id)
            if await store.set_content(tx, dossier_id, code, upload_id, bytes.fromhex(promised), size, kind):
                fact = ComponentStored(office_at=service.office.now(), component_code=code, sha256=promised, size=size)
                lanes = await stage(tx, [await store.next_event(tx, submission, fact)])
        service.wake(lanes)
        return Response(
            dumps({"dossier_id": dossier_id, "code": code, "sha256": promised, "size": size}),
            201,
            media_type="application/json",
        )

    return routes


def _check_component(submission: Any | None, code: str) -> None:
    if submission is None:
        raise not_found("Không có hồ sơ này.", "There is no such dossier.", "unknown-dossier")
    if code not in {part["code"] for part in store.components_of(submission)}:
        raise not_found("Hồ sơ không có thành phần này.", "The dossier has no such component.", "unknown-component")


async def _store_pieces(request: Request, pool: Pool, upload_id: UUID) -> tuple[str, int]:
    """(SHA-256 as hex, bytes) of what came, stored piece by piece."""
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
    return whole.hexdigest(), size


def _too_large() -> Problem:
    return Problem(413, "too-large", vi="Tệp quá 50 MiB.", en="The file is larger than 50 MiB.")
