"""Which server works on the jobs of a home: one of those on the folder, and one of those on a database."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from ownchat.errors import RunError
from ownchat.serve.database import LOCK, Database


class Lead:
    """A lock on ``server/lock`` and, of a PostgreSQL, one there. Both end with the process, however it ends."""

    def __init__(self, database: Database, home: Path) -> None:
        self._database, self._home = database, home
        self._lock: IO[str] | None = None
        self._session: Connection | None = None  # holds PostgreSQL's lock as long as it lives

    @property
    def held(self) -> bool:
        """Whether it is this server."""
        return self._lock is not None

    @property
    def is_shared(self) -> bool:
        """Whether other gateways may have the same database."""
        return self._database.engine.dialect.name == "postgresql"

    def take(self) -> None:
        """Make it this server. Again: no effect.

        Raises :class:`~ownchat.errors.RunError` when it is another one.
        """
        if self._lock is not None:
            return
        folder = self._home / "server"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as undone:
            handle = undone.enter_context(open(folder / "lock", "a+"))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                handle.seek(0)
                raise RunError(
                    f"another server works on this folder (process {handle.read(20).strip() or 'unknown'})",
                    where=str(self._home),
                    fix="end it, or give this one another OWNCHAT_HOME",
                ) from error
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            if self.is_shared and not self._take_database():
                raise RunError("another gateway of this database works on its jobs", where="--database")
            undone.pop_all()
            self._lock = handle

    def check(self) -> None:
        """Raise where the connection that holds PostgreSQL's lock is gone: another gateway may have it by now."""
        if self._session is not None:
            self._session.execute(text("SELECT 1"))

    def release(self, *, lost: bool = False) -> None:
        """Let another one take it. ``lost``: only where it is held by a connection that may be gone."""
        if lost and self._session is None:
            return
        if self._session is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._session.invalidate()  # the lock ends with the connection, which must not go back to the pool
                self._session.close()
            self._session = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_database(self) -> bool:
        session = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if session.execute(text("SELECT pg_try_advisory_lock(:number)"), {"number": LOCK + 1}).scalar_one():
            self._session = session
            return True
        session.close()
        return False
