"""Uploads: a large file in parts, which may come in any order and at the same time; what counts is the list at the end.

Parts lie in ``server/uploads/ID/``. An upload that is not completed within an hour is over, and its parts are deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, Index, Row, String, Table, and_, delete, func, insert, select, update

from ownchat.serve.database import Database, metadata
from ownchat.serve.errors import ApiError
from ownchat.serve.file_store import FileStore, told_when_full
from ownchat.serve.protocol.files import MOST_PARTS, UPLOAD_SECONDS, UploadRequest, shown_name

COPY_BYTES = 1 << 20
PENDING, COMPLETED, CANCELLED, EXPIRED = "pending", "completed", "cancelled", "expired"

_uploads = Table(
    "ownchat_uploads",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("filename", String(255), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("seconds", BigInteger),  # until the file expires, once it is one
    Column("status", String(16), nullable=False),
    Column("file", String(64)),
)
_parts = Table(
    "ownchat_upload_parts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("upload", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Index("ownchat_upload_parts_of", "upload"),
)


class UploadStore:
    """The uploads of a server. Threads may share it."""

    def __init__(self, database: Database, files: FileStore, home: Path) -> None:
        self._database, self._files = database, files
        self._folder = home / "server" / "uploads"

    def create(self, owner: str, wanted: UploadRequest) -> Row[Any]:
        """A new one. Raises 507 where its bytes would not fit on the disk."""
        self._files.check_room(2 * wanted.bytes)  # the parts, and the file that is put together of them
        id, now = f"upload_{secrets.token_hex(12)}", int(time.time())
        seconds = None if wanted.expires_after is None else wanted.expires_after.seconds
        with self._database.begin() as connection:
            connection.execute(
                insert(_uploads).values(
                    id=id,
                    owner=owner,
                    filename=shown_name(wanted.filename),
                    bytes=wanted.bytes,
                    created=now,
                    purpose=wanted.purpose,
                    expires=now + UPLOAD_SECONDS,
                    seconds=seconds,
                    status=PENDING,
                )
            )
        return self.get(owner, id)

    def get(self, owner: str, id: str) -> Row[Any]:
        """That upload; raises 404 where there is none, also where it is somebody else's."""
        with self._database.read() as connection:
            mine = and_(_uploads.c.id == id.replace("\x00", ""), _uploads.c.owner == owner)
            row = connection.execute(select(_uploads).where(mine)).first()
        if row is None:
            raise ApiError(404, f"No such Upload object: {id[:64]}", param="upload_id", code="upload_not_found")
        return row

    def pending(self, owner: str, id: str) -> Row[Any]:
        """The same; raises 400 where it is over."""
        row = self.get(owner, id)
        if (status := status_of(row)) != PENDING:
            raise ApiError(400, f"this upload is {status}", param="upload_id", code="invalid_value")
        return row

    def incoming(self, upload: Row[Any], num_bytes: int) -> Path:
        """A name for a part that is about to come. Raises 507 where the disk has no room for ``num_bytes``."""
        self._files.check_room(num_bytes)
        folder = self._folder / upload.id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder / f".incoming-{secrets.token_hex(12)}"

    def add_part(self, owner: str, upload: Row[Any], came: Path) -> tuple[str, int]:
        """Take the bytes at ``came`` in; the part's id and when that was.

        Raises 400 where the upload ended meanwhile, and where its parts become more than its bytes allow.
        """
        id = f"part_{secrets.token_hex(12)}"
        with self._while_pending(owner, upload.id):
            size = came.stat().st_size
            os.replace(came, came.with_name(id))
        with self._database.locked() as connection:  # so that parts that come together are counted together
            of_upload = select(func.count(), func.coalesce(func.sum(_parts.c.bytes), 0)).where(
                _parts.c.upload == upload.id
            )
            count, held = connection.execute(of_upload).one()
            status = connection.execute(select(_uploads.c.status).where(_uploads.c.id == upload.id)).scalar()
            # a part that was sent twice, because its answer was lost, is left out at the end: some room for these
            if status == PENDING and count < MOST_PARTS and held + size <= 2 * upload.bytes:
                connection.execute(insert(_parts).values(id=id, upload=upload.id, bytes=size))
                return id, int(time.time())
        came.with_name(id).unlink(missing_ok=True)
        self.pending(owner, upload.id)
        raise ApiError(
            400,
            f"the parts are larger than the {upload.bytes} bytes that were announced",
            param="data",
            code="invalid_value",
        )

    def cancel(self, owner: str, id: str) -> Row[Any]:
        """End it; its parts are deleted."""
        row = self.pending(owner, id)
        with self._database.begin() as connection:
            mine = and_(_uploads.c.id == row.id, _uploads.c.status == PENDING)
            connection.execute(update(_uploads).where(mine).values(status=CANCELLED))
        row = self.get(owner, id)
        if row.status == CANCELLED:
            self._clear(row.id)
        return row

    def complete(
        self, owner: str, id: str, part_ids: Sequence[str], md5: str | None, check: Callable[[Path, str], None]
    ) -> Row[Any]:
        """Put the file together, in the order of ``part_ids``. ``check(path, purpose)`` may refuse its content.

        The same call again, because its answer was lost, finds the same file. Raises 400 for parts that are not of
        this upload, for another number of bytes than announced and for another hash.
        """
        row = self.get(owner, id)
        if row.status == COMPLETED and row.file is not None:
            return row
        row = self.pending(owner, id)
        with self._database.read() as connection:
            rows = connection.execute(select(_parts.c.id, _parts.c.bytes).where(_parts.c.upload == row.id)).all()
        sizes = {part.id: int(part.bytes) for part in rows}
        if unknown := [part for part in part_ids if part not in sizes]:
            raise ApiError(
                400, f"no such part of this upload: {unknown[0][:64]}", param="part_ids", code="invalid_value"
            )
        if len(set(part_ids)) != len(part_ids):
            raise ApiError(400, "a part stands there twice", param="part_ids", code="invalid_value")
        if (total := sum(sizes[part] for part in part_ids)) != row.bytes:
            raise ApiError(
                400,
                f"the parts have {total} bytes, and {row.bytes} were announced",
                param="part_ids",
                code="invalid_value",
            )
        came = self._files.incoming(row.bytes)
        try:
            with self._while_pending(owner, row.id), told_when_full():
                sha256, found = self._join([self._folder / row.id / part for part in part_ids], came)
            if md5 is not None and md5.strip().lower() != found:
                raise ApiError(400, "the md5 checksum is another one", param="md5", code="invalid_value")
            check(came, row.purpose)
            with self._database.begin() as connection:
                mine = and_(_uploads.c.id == row.id, _uploads.c.status == PENDING)
                if connection.execute(update(_uploads).where(mine).values(status=COMPLETED)).rowcount:
                    file = self._files.put(
                        connection,
                        owner,
                        came,
                        filename=row.filename,
                        purpose=row.purpose,
                        sha256=sha256,
                        seconds=row.seconds,
                    )
                    connection.execute(update(_uploads).where(_uploads.c.id == row.id).values(file=file))
        finally:
            came.unlink(missing_ok=True)
        row = self.get(owner, id)
        if row.status == COMPLETED:
            self._clear(row.id)
            return row
        return self.pending(owner, id)  # cancelled meanwhile: refused

    def sweep(self) -> int:
        """Delete the parts of uploads whose time is over, and what was left of others; how many were expired."""
        now = int(time.time())
        over = and_(_uploads.c.status == PENDING, _uploads.c.expires <= now)
        with self._database.begin() as connection:
            ids = connection.execute(select(_uploads.c.id).where(over)).scalars().all()
            connection.execute(update(_uploads).where(over).values(status=EXPIRED))
        held = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        with self._database.read() as connection:  # after the look: whatever is new by then is pending
            wanted = set(connection.execute(select(_uploads.c.id).where(_uploads.c.status == PENDING)).scalars())
        for id in {*ids, *held} - wanted:
            self._clear(id)
        return len(ids)

    @contextlib.contextmanager
    def _while_pending(self, owner: str, id: str) -> Iterator[None]:
        """A file that is gone because the upload ended meanwhile is the refusal of :meth:`pending`."""
        try:
            yield
        except FileNotFoundError:
            self.pending(owner, id)
            raise

    def _join(self, parts: Sequence[Path], came: Path) -> tuple[str, str]:
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        descriptor = os.open(came, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            for part in parts:
                with open(part, "rb") as handle:
                    while block := handle.read(COPY_BYTES):
                        sha256.update(block)
                        md5.update(block)
                        out.write(block)
            out.flush()
            os.fsync(out.fileno())
        return sha256.hexdigest(), md5.hexdigest()

    def _clear(self, id: str) -> None:
        if re.fullmatch(r"upload_[0-9a-f]{24}", id):
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder / id)
        with self._database.begin() as connection:
            connection.execute(delete(_parts).where(_parts.c.upload == id))


def status_of(row: Row[Any]) -> str:
    """The status as it is now: a pending one whose time is over has expired, swept or not."""
    return EXPIRED if row.status == PENDING and row.expires <= time.time() else str(row.status)
