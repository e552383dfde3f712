"""``/v1/files`` and ``/v1/uploads``: streamed to the disk, of an owner, deleted when they expire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse
from sqlalchemy import Row

from ownchat.serve import services as shared
from ownchat.serve.auth import needs
from ownchat.serve.errors import ApiError
from ownchat.serve.file_store import FileStore, told_when_full
from ownchat.serve.forms import Form, receive_form
from ownchat.serve.keys import Caller
from ownchat.serve.protocol.body import named, read
from ownchat.serve.protocol.files import (
    FILE_BYTES,
    PART_BYTES,
    PURPOSES,
    CompleteRequest,
    UploadRequest,
    expiry_of,
    file_object,
)
from ownchat.serve.training_file import NotJsonLines, check_json_lines
from ownchat.serve.upload_store import UploadStore, status_of

router = APIRouter(prefix="/v1", tags=["files"])

Train = Annotated[Caller, Depends(needs("train"))]
MOST_LISTED = 10_000
KNOWN_FIELDS = ("purpose", "expires_after", "expires_after[anchor]", "expires_after[seconds]")


def file_store(request: Request) -> FileStore:
    """The files of the server that a request came to."""
    store: FileStore = request.app.state.files
    return store


def upload_store(request: Request) -> UploadStore:
    """Its uploads."""
    store: UploadStore = request.app.state.uploads
    return store


Files = Annotated[FileStore, Depends(file_store)]
Uploads = Annotated[UploadStore, Depends(upload_store)]


# ------------------------------------------------------------------------------------------------------------- files


@router.post("/files")
async def create(request: Request, caller: Train, files: Files) -> dict[str, Any]:
    """Upload a file; one to learn from must be JSON Lines."""
    came = await asyncio.to_thread(files.incoming, _announced(request, FILE_BYTES))
    with _removed(came):
        form = await _received(request, came, "file", FILE_BYTES)
        purpose = form.fields.get("purpose")
        if purpose is None:
            raise ApiError(
                400, "you must give the parameter 'purpose'", param="purpose", code="missing_required_parameter"
            )
        if purpose not in PURPOSES:
            raise ApiError(
                400, f"'{purpose[:64]}' is not one of {list(PURPOSES)} - 'purpose'", param="purpose",
                code="invalid_value",
            )  # fmt: skip
        if unknown := sorted(set(form.fields) - set(KNOWN_FIELDS)):
            raise ApiError(
                400,
                f"Unrecognized request argument supplied: {named(unknown)}",
                param=named(unknown[:1]),
                code="unknown_parameter",
            )
        seconds = expiry_of(form.fields)
        await asyncio.to_thread(check_content, came, purpose)
        row = await asyncio.to_thread(
            files.add, caller.owner, came, filename=form.filename or "file", purpose=purpose, sha256=form.sha256,
            seconds=seconds,
        )  # fmt: skip
    request.state.log["bytes"] = form.num_bytes
    return file_object(row)


@router.get("/files")
def list_files(
    caller: Train,
    files: Files,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1)] = MOST_LISTED,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> dict[str, Any]:
    """The caller's files."""
    rows, more = files.list(
        caller.owner, purpose=purpose, after=after or None, limit=min(limit, MOST_LISTED), ascending=order == "asc"
    )
    data = [file_object(row) for row in rows]
    ends = {"first_id": data[0]["id"] if data else "", "last_id": data[-1]["id"] if data else ""}
    return {"object": "list", "data": data, **ends, "has_more": more}


@router.get("/files/{file_id}")
def retrieve(file_id: str, caller: Train, files: Files) -> dict[str, Any]:
    """One of them."""
    return file_object(files.get(caller.owner, file_id))


@router.delete("/files/{file_id}")
def delete(file_id: str, caller: Train, files: Files) -> dict[str, Any]:
    """Delete it; jobs that learn from it go on."""
    files.delete(caller.owner, file_id)
    return {"id": file_id, "object": "file", "deleted": True}


@router.get("/files/{file_id}/content")
def content(file_id: str, caller: Train, files: Files) -> FileResponse:
    """Its bytes, as they are: never as a page that a browser would show."""
    row = files.get(caller.owner, file_id)
    path = files.path(row.id)
    if not path.is_file():
        raise ApiError(404, f"No such File object: {file_id[:64]}", param="id", code="file_not_found")
    return FileResponse(path, media_type="application/octet-stream", filename=row.filename)


# ----------------------------------------------------------------------------------------------------------- uploads


@router.post("/uploads")
async def create_upload(request: Request, caller: Train, uploads: Uploads) -> dict[str, Any]:
    """Begin a file that comes in parts."""
    body, _ = await read(request, UploadRequest, strict=shared.of(request).settings.strict)
    return _upload(await asyncio.to_thread(uploads.create, caller.owner, body))


@router.post("/uploads/{upload_id}/parts")
async def create_part(request: Request, upload_id: str, caller: Train, uploads: Uploads) -> dict[str, Any]:
    """One part of it, in the field ``data``."""
    upload = await asyncio.to_thread(uploads.pending, caller.owner, upload_id)
    came = await asyncio.to_thread(uploads.incoming, upload, _announced(request, PART_BYTES))
    with _removed(came):
        await _received(request, came, "data", PART_BYTES)
        id, now = await asyncio.to_thread(uploads.add_part, caller.owner, upload, came)
    return {"id": id, "object": "upload.part", "created_at": now, "upload_id": upload_id}


@router.post("/uploads/{upload_id}/complete")
async def complete(request: Request, upload_id: str, caller: Train, uploads: Uploads, files: Files) -> dict[str, Any]:
    """Make a file of the parts."""
    body, _ = await read(request, CompleteRequest, strict=shared.of(request).settings.strict)
    row = await asyncio.to_thread(uploads.complete, caller.owner, upload_id, body.part_ids, body.md5, check_content)
    return _upload(row) | {"file": await asyncio.to_thread(_file_of, files, caller.owner, row.file)}


@router.post("/uploads/{upload_id}/cancel")
def cancel(upload_id: str, caller: Train, uploads: Uploads) -> dict[str, Any]:
    """End it; its parts are deleted."""
    return _upload(uploads.cancel(caller.owner, upload_id))


# ------------------------------------------------------------------------------------------------------------ inside


def check_content(path: Path, purpose: str) -> None:
    """Raise 400 for a file to learn from that is no JSON Lines, with the line; nothing else is looked into."""
    if purpose != "fine-tune":
        return
    try:
        with open(path, "rb") as stream:
            check_json_lines(stream)
    except NotJsonLines as error:
        raise ApiError(400, str(error), param="file", code="invalid_file_format") from error


def _announced(request: Request, most_bytes: int) -> int:
    """How many bytes come, as far as one knows before."""
    length = request.headers.get("content-length", "")
    return min(int(length[:20]), most_bytes) if length.isascii() and length.isdigit() else most_bytes


async def _received(request: Request, came: Path, field: str, most_bytes: int) -> Form:
    idle = shared.of(request).settings.upload_seconds
    form = await receive_form(request, came, file=field, most_bytes=most_bytes, idle_seconds=idle)
    if form.filename is None:
        raise ApiError(400, f"you must give the parameter '{field}'", param=field, code="missing_required_parameter")
    if form.num_bytes == 0:
        raise ApiError(400, f"'{field}' is empty", param=field, code="invalid_value")
    return form


@contextlib.contextmanager
def _removed(came: Path) -> Iterator[None]:
    """Whatever becomes of what came: nothing half is left."""
    try:
        with told_when_full():
            yield
    finally:
        came.unlink(missing_ok=True)


def _file_of(files: FileStore, owner: str, id: str | None) -> dict[str, Any] | None:
    try:
        return None if id is None else file_object(files.get(owner, id))
    except ApiError:  # deleted since
        return None


def _upload(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id, "object": "upload", "bytes": row.bytes, "created_at": row.created, "filename": row.filename,
        "purpose": row.purpose, "status": status_of(row), "expires_at": row.expires, "file": None,
    }  # fmt: skip
