"""Files that clients uploaded, and files that jobs made: bytes in ``server/files/ID``, everything else in the database.

A file is accepted when its row is there, and its bytes lie in place before that: a process that is killed in between
leaves bytes without a row, which :meth:`FileStore.sweep` takes away. Everything is of an owner; for others it is not
there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    Row,
    String,
    Table,
    and_,
    delete,
    insert,
    or_,
    select,
)
from sqlalchemy.sql import ColumnElement

from ownchat.serve.database import Database, metadata
from ownchat.serve.errors import ApiError
from ownchat.serve.protocol.files import shown_name

SPARE_BYTES = 1 << 30  # that stay free on the disk: training, too, needs some
LEFT_OVER_SECONDS = 6 * 3600  # after these, bytes that belong to no row are no upload that still comes
NOT_RETRIED = {"x-should-retry": "false"}

_files = Table(
    "ownchat_files",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("owner", String(64), nullable=False),
    Column("filename", String(255), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("sha256", String(64), nullable=False),
    Index("ownchat_files_of_owner", "owner", "seq"),
)


class FileStore:
    """The files of a server. Threads may share it."""

    def __init__(self, database: Database, home: Path) -> None:
        self._database = database
        self._folder = home / "server" / "files"

    def path(self, id: str) -> Path:
        """Where the bytes of a file lie; only for ids that the database has."""
        return self._folder / id

    def incoming(self, num_bytes: int = 0) -> Path:
        """A name for bytes that are about to come. Raises 507 where the disk has no room for ``num_bytes``."""
        self.check_room(num_bytes)
        return self._aside()

    def check_room(self, num_bytes: int) -> None:
        """Raise 507 where the disk has no room for so many more."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(self._folder).free < num_bytes + SPARE_BYTES:
            raise no_room()

    def add(
        self, owner: str, came: Path, *, filename: str, purpose: str, sha256: str, seconds: int | None = None
    ) -> Row[Any]:
        """Take the bytes at ``came`` (on the disk already) in as a file. ``seconds``: until it expires."""
        with self._database.begin() as connection:
            id = self.put(connection, owner, came, filename=filename, purpose=purpose, sha256=sha256, seconds=seconds)
        return self.get(owner, id)

    def put(
        self,
        connection: Connection,
        owner: str,
        came: Path,
        *,
        filename: str,
        purpose: str,
        sha256: str,
        seconds: int | None = None,
    ) -> str:
        """:meth:`add` as a part of a transaction; returns the id."""
        id, now = f"file-{secrets.token_hex(12)}", int(time.time())
        size = came.stat().st_size
        os.replace(came, self.path(id))
        flush_folder(self._folder)
        connection.execute(
            insert(_files).values(
                id=id,
                owner=owner,
                filename=shown_name(filename),
                bytes=size,
                purpose=purpose,
                created=now,
                expires=None if seconds is None else now + seconds,
                sha256=sha256,
            )
        )
        return id

    def add_made(self, connection: Connection, owner: str, id: str, content: bytes, *, filename: str) -> None:
        """In a transaction: a result of a job. The same one added again, after a crash, is there once."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        came = self._aside()  # without a look at the room: it is small, and the work is done
        descriptor = os.open(came, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(came, self.path(id))
        connection.execute(delete(_files).where(_files.c.id == id))
        connection.execute(
            insert(_files).values(
                id=id,
                owner=owner,
                filename=filename,
                bytes=len(content),
                purpose="fine-tune-results",
                created=int(time.time()),
                expires=None,
                sha256="",
            )
        )

    def get(self, owner: str, id: str) -> Row[Any]:
        """That file; raises 404 where there is none, also where it is somebody else's or has expired."""
        with self._database.read() as connection:
            row = connection.execute(select(_files).where(_there(owner), _files.c.id == id.replace("\x00", ""))).first()
        if row is None:
            raise ApiError(404, f"No such File object: {id[:64]}", param="id", code="file_not_found")
        return row

    def list(
        self, owner: str, *, purpose: str | None, after: str | None, limit: int, ascending: bool
    ) -> tuple[Sequence[Row[Any]], bool]:
        """A page, and whether more follow. ``after`` an id that is not there is 400."""
        wanted = [_there(owner)]
        if purpose is not None:
            wanted.append(_files.c.purpose == purpose.replace("\x00", ""))
        with self._database.read() as connection:
            if after is not None:
                mine = and_(_files.c.owner == owner, _files.c.id == after.replace("\x00", ""))
                start = connection.execute(select(_files.c.seq).where(mine)).scalar()
                if start is None:
                    raise ApiError(400, "'after' is not an id of this list", param="after", code="invalid_value")
                wanted.append(_files.c.seq > start if ascending else _files.c.seq < start)
            order = _files.c.seq.asc() if ascending else _files.c.seq.desc()
            rows = connection.execute(select(_files).where(and_(*wanted)).order_by(order).limit(limit + 1)).all()
        return rows[:limit], len(rows) > limit

    def delete(self, owner: str, id: str) -> None:
        """Forget it; raises 404 as :meth:`get` does. A job that learns from it has bytes of its own."""
        row = self.get(owner, id)
        with self._database.begin() as connection:
            connection.execute(delete(_files).where(_files.c.id == row.id))
        self.path(row.id).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Delete files that have expired, and bytes that no row is about; how many files that were."""
        now = int(time.time())
        with self._database.begin() as connection:
            expired = connection.execute(select(_files.c.id).where(_files.c.expires <= now)).scalars().all()
            connection.execute(delete(_files).where(_files.c.id.in_(expired)))
            known = set(connection.execute(select(_files.c.id)).scalars())
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                with contextlib.suppress(OSError):
                    if path.name not in known and path.stat().st_mtime < now - LEFT_OVER_SECONDS:
                        path.unlink()
        for id in expired:
            self.path(id).unlink(missing_ok=True)
        return len(expired)

    def _aside(self) -> Path:
        return self._folder / f".incoming-{secrets.token_hex(12)}"


def no_room() -> ApiError:
    """What a client is told that sends more than the disk holds: to send it again would not help."""
    return ApiError(
        507, "the server's disk is full", type="server_error", code="insufficient_storage", headers=NOT_RETRIED
    )


@contextlib.contextmanager
def told_when_full() -> Iterator[None]:
    """A disk that becomes full while bytes come is the same 507."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_room() from error
        raise


def flush_folder(folder: Path) -> None:
    """So that a name given by a rename is on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _there(owner: str) -> ColumnElement[bool]:
    alive = or_(_files.c.expires.is_(None), _files.c.expires > int(time.time()))
    return and_(_files.c.owner == owner, alive)
