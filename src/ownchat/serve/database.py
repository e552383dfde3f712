"""Where keys and stored answers lie: SQLite in the home, or a PostgreSQL that several gateways share.

Tables stand beside the code that uses them and join :data:`metadata`; :func:`connect` makes those that are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, create_engine, event, insert, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ownchat.artifacts import owner_only
from ownchat.errors import ConfigError, UserError
from ownchat.serve.settings import Settings

SCHEMA_VERSION = 1
LOCK = 0x6F776E63  # "ownc": the number of PostgreSQL's advisory lock

metadata = MetaData()
_schema = Table("ownchat_schema", metadata, Column("version", Integer, primary_key=True))


class Database:
    """A pool of connections. Safe for many threads; a transaction is of one thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that writes: committed at the end of the block, rolled back by an exception."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads, and on SQLite waits for no writer."""
        with self.engine.connect() as connection:
            connection = connection.execution_options(reads_only=True)
            with connection.begin():
                yield connection

    @contextmanager
    def locked(self) -> Iterator[Connection]:
        """A transaction that writes while no other gateway is in one of these."""
        with self.begin() as connection:  # SQLite has one writer at a time anyway
            if self.engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK})
            yield connection

    def close(self) -> None:
        """Close what is connected."""
        self.engine.dispose()


@owner_only()
def connect(settings: Settings) -> Database:
    """Open the database and bring its schema up. Import the modules with tables before.

    Raises :class:`~ownchat.errors.UserError` for a URL that is none, a database that does not answer, and one that a
    newer ownchat made. A password in the URL is in no message.
    """
    url = _url(settings)
    shown = url.render_as_string(hide_password=True)
    try:
        engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)
        database = Database(engine)
        _make_schema(database, shown)
    except SQLAlchemyError as error:
        reason = type(getattr(error, "orig", None) or error).__name__
        raise UserError(
            f"the database cannot be used ({reason})", where=shown, fix="check that it runs, its name and its password"
        ) from error
    return database


def _url(settings: Settings) -> URL:
    if settings.database is None:
        folder = settings.home / "server"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return URL.create("sqlite", database=str(folder / "server.db"))
    fix = "give postgresql://USER:PASSWORD@HOST/NAME or sqlite:////path/to/server.db"
    try:
        url = make_url(settings.database)
    except ArgumentError as error:
        raise ConfigError("not the URL of a database", where="--database", fix=fix) from error
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ConfigError(f"{url.drivername} is not known here", where="--database", fix=fix)
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError("a database in memory forgets its keys", where="--database", fix=fix)
    return url


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver shall begin nothing: begin() below does
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later fails at once when another wrote between: writers say so.
        reads_only = connection.get_execution_options().get("reads_only", False)
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the PostgreSQL driver is not installed", where="--database", fix="pip install 'ownchat[postgres]'"
        ) from error
    return create_engine(url, pool_pre_ping=True, pool_size=5, max_overflow=15, connect_args={"connect_timeout": 10})


def _make_schema(database: Database, shown: str) -> None:
    with database.locked() as connection:
        metadata.create_all(connection)
        versions = connection.execute(select(_schema.c.version)).scalars().all()
        if not versions:
            connection.execute(insert(_schema).values(version=SCHEMA_VERSION))
        elif max(versions) > SCHEMA_VERSION:
            raise UserError(
                f"made by a newer ownchat (schema {max(versions)}, this one knows {SCHEMA_VERSION})",
                where=shown,
                fix="update ownchat, or give another database",
            )
