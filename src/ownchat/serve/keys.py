"""Keys of the API: made once, kept as hashes, with scopes, an owner and an end.

A key is 256 random bits, so a plain SHA-256 of it is as good as a slow hash: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

from sqlalchemy import Column, Float, String, Table, func, insert, select, update

from ownchat.errors import UserError
from ownchat.serve.database import Database, metadata

SCOPES = ("infer", "train", "metrics", "admin")  # admin may all
PREFIX = "sk-own-"
VARIABLE = "OWNCHAT_API_KEY"
OPERATOR = "operator"  # owner of the first key, and of OWNCHAT_API_KEY
SHORTEST = 20  # of OWNCHAT_API_KEY: what a person makes up is guessed
LONGEST = 256
REMEMBERED_SECONDS = 5.0  # so long a key that another process revoked may still work

OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

_keys = Table(
    "ownchat_keys",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("lookup", String(16), nullable=False, index=True),  # the hash's beginning: the rest is compared in one go
    Column("hash", String(64), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("scopes", String(64), nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float),
    Column("revoked", Float),
)


@dataclass(frozen=True)
class Caller:
    """Who asks: which key, whose it is, and what it may do."""

    key_id: str
    owner: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether the key has a scope; ``admin`` has all."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True)
class Key:
    """A key as it is listed: without the secret, which nobody has but its user. Times are Unix seconds."""

    id: str
    owner: str
    scopes: tuple[str, ...]
    created: float
    expires: float | None
    revoked: float | None

    def state(self, now: float) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


class Keys:
    """The keys of a database, and the one of ``OWNCHAT_API_KEY``. Safe for many threads."""

    def __init__(self, database: Database) -> None:
        """Raises :class:`~ownchat.errors.UserError` when the variable holds a key that is easily guessed."""
        self._database = database
        self._given = _given()
        self._known: dict[str, tuple[float, Key]] = {}  # by hash; only keys that exist, so it stays small
        self._lock = Lock()

    def first(self) -> str | None:
        """A key for a database that never had one and no ``OWNCHAT_API_KEY``, else None. To be shown once."""
        if self._given is not None:
            return None
        with self._database.locked() as connection:
            if connection.execute(select(func.count()).select_from(_keys)).scalar_one():
                return None
            token, row = _made(OPERATOR, ("admin",), None)
            connection.execute(insert(_keys).values(row))
        return token

    def create(
        self, owner: str, scopes: tuple[str, ...] = ("infer",), *, expires: float | None = None
    ) -> tuple[Key, str]:
        """A new key and its secret, which is kept nowhere. ``expires`` is a Unix time.

        Raises :class:`~ownchat.errors.UserError` for an owner's name or a scope that cannot be.
        """
        if not OWNER.fullmatch(owner):
            raise UserError("not an owner's name", where=repr(owner), fix="use letters, digits, dots, dashes and @")
        if not scopes or (unknown := sorted(set(scopes) - set(SCOPES))):
            raise UserError(
                f"no such scope: {', '.join(unknown) if scopes else 'none given'}",
                where="keys create",
                fix=f"use {', '.join(SCOPES)}",
            )
        token, row = _made(owner, scopes, expires)
        with self._database.begin() as connection:
            connection.execute(insert(_keys).values(row))
        return _key(row), token

    def list(self) -> list[Key]:
        """All keys, oldest first, those that are revoked or expired too."""
        with self._database.read() as connection:
            rows = connection.execute(select(_keys).order_by(_keys.c.created)).mappings().all()
        return [_key(dict(row)) for row in rows]

    def revoke(self, id: str) -> Key:
        """Make a key useless: here at once, in other processes within ``REMEMBERED_SECONDS``.

        Raises :class:`~ownchat.errors.UserError` when there is no such key.
        """
        with self._database.begin() as connection:
            connection.execute(
                update(_keys).where(_keys.c.id == id, _keys.c.revoked.is_(None)).values(revoked=time.time())
            )
            row = connection.execute(select(_keys).where(_keys.c.id == id)).mappings().one_or_none()
        if row is None:
            raise UserError("there is no such key", where=id, fix="ownchat keys list shows them by their ids")
        with self._lock:
            self._known.clear()
        return _key(dict(row))

    def check(self, token: str) -> Caller | None:
        """Whose key this is; None when it is nobody's, expired or revoked. May ask the database."""
        digest = _digest(token)
        if self._given is not None and hmac.compare_digest(digest, self._given):
            return Caller("key_env", OPERATOR, frozenset(("admin",)))
        if not token.startswith(PREFIX):
            return None  # nothing to look up
        key = self._remembered(digest)
        if key is None:
            key = self._found(digest)
        if key is None or key.state(time.time()) != "active":
            return None
        return Caller(key.id, key.owner, frozenset(key.scopes))

    def is_remembered(self, token: str) -> bool:
        """Whether :meth:`check` will answer without the database, so that no thread is needed for it."""
        digest = _digest(token)
        given = self._given is not None and hmac.compare_digest(digest, self._given)
        return given or not token.startswith(PREFIX) or self._remembered(digest) is not None

    def _remembered(self, digest: str) -> Key | None:
        with self._lock:
            seen, key = self._known.get(digest, (0.0, None))
        return key if time.monotonic() - seen < REMEMBERED_SECONDS else None

    def _found(self, digest: str) -> Key | None:
        with self._database.read() as connection:
            rows = connection.execute(select(_keys).where(_keys.c.lookup == digest[:16])).mappings().all()
        found = None
        for row in rows:
            if hmac.compare_digest(row["hash"], digest):
                found = _key(dict(row))
        if found is not None:
            with self._lock:
                self._known[digest] = (time.monotonic(), found)
        return found


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _given() -> str | None:
    token = os.environ.get(VARIABLE)
    if not token:
        return None
    if not SHORTEST <= len(token) <= LONGEST or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            f"not a safe key: {SHORTEST} to {LONGEST} letters, digits and signs are needed",
            where=VARIABLE,
            fix="make one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return _digest(token)


def _made(owner: str, scopes: tuple[str, ...], expires: float | None) -> tuple[str, dict[str, object]]:
    token = PREFIX + secrets.token_urlsafe(32)
    digest = _digest(token)
    return token, {
        "id": f"key_{secrets.token_hex(8)}",
        "lookup": digest[:16],
        "hash": digest,
        "owner": owner,
        "scopes": " ".join(scope for scope in SCOPES if scope in scopes),
        "created": time.time(),
        "expires": expires,
        "revoked": None,
    }


def _key(row: dict[str, object]) -> Key:
    names = ("id", "owner", "created", "expires", "revoked")
    values: dict[str, Any] = {name: row[name] for name in names}
    return Key(scopes=tuple(str(row["scopes"]).split()), **values)
