"""Stored answers: what was asked and answered, by which weights, how it was rated; without what is private.

Clients store with ``store=True`` and rate with OpenAI's own call, so that no API had to be invented:
``client.chat.completions.update(id, metadata={"rating": "down", "edited": "what it should have said"})``.
Everything is of an owner; for others it is not there. What stands here has been through the redactor: people's data
are placeholders, and who they were is nowhere.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Index,
    Integer,
    Row,
    String,
    Table,
    Text,
    and_,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.sql import ColumnElement

from ownchat.serve.database import Database, metadata
from ownchat.serve.errors import ApiError
from ownchat.serve.protocol.body import without_nul
from ownchat.serve.redacting import Redacting
from ownchat.serve.settings import Settings

Kind = Literal["chat", "response"]
CHAT: Kind = "chat"
RESPONSE: Kind = "response"
RATINGS: Mapping[str, str] = {
    "up": "up", "good": "up", "positive": "up", "4": "up", "5": "up",
    "down": "down", "bad": "down", "negative": "down", "1": "down", "2": "down",
    "neutral": "neutral", "3": "neutral",
}  # fmt: skip
DAY_SECONDS = 86_400

_records = Table(
    "ownchat_records",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("model_hash", String(64), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("prompt", JSON, nullable=False),  # messages, tools, settings
    Column("prompt_hash", String(64), nullable=False),
    Column("answer", JSON, nullable=False),  # the object that the client got
    Column("metadata", JSON, nullable=False),
    Column("rating", String(8)),  # up, down or neutral, from metadata.rating
    Column("edited", Text),  # a person's better answer, from metadata.edited
    Column("redaction", JSON, nullable=False),  # {"state": "redacted", "types": {"email": 2}}
    Index("ownchat_records_of_owner", "owner", "kind", "seq"),
    Index("ownchat_records_by_age", "created"),
)
_labels = Table(  # metadata once more, one pair a row: databases search their JSON in different words
    "ownchat_record_labels",
    metadata,
    Column("record", String(64), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("value", String(512), nullable=False),
)


@dataclass(frozen=True)
class Record:
    """One stored answer. ``messages`` is what was asked, ``answer`` OpenAI's object; ``metadata`` the client's."""

    id: str
    kind: Kind
    owner: str
    model: str
    model_hash: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    settings: dict[str, Any]
    answer: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    created: int = field(default_factory=lambda: int(time.time()))
    rating: str | None = None
    edited: str | None = None
    redaction: dict[str, Any] = field(default_factory=dict)
    prompt_hash: str = ""


class Records:
    """The stored answers of a server. Every call is of one owner; threads may share it."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._redacting = Redacting()

    # ---------------------------------------------------------------------------------------------- one record

    def add(self, record: Record) -> Record:
        """Store it, redacted; returns what is stored."""
        record = self._redacted(record)
        row = {name: getattr(record, name) for name in _OF_ROW}
        row["prompt"] = {"messages": record.messages, "tools": record.tools, "settings": record.settings}
        with self._database.begin() as connection:
            connection.execute(insert(_records).values(**row))
            self._label(connection, record)
        return record

    def get(self, owner: str, id: str, *, kind: Kind) -> Record | None:
        """That record; none where there is none, also where it is somebody else's."""
        with self._database.read() as connection:
            row = connection.execute(select(_records).where(_is(owner, id, kind))).first()
        return None if row is None else _record(row)

    def update(self, owner: str, id: str, metadata: Mapping[str, str], *, kind: Kind) -> Record | None:
        """Give it new metadata in place of the old; ``rating`` and ``edited`` in it are understood.

        Raises :class:`~ownchat.serve.errors.ApiError` 400 for a rating that is none.
        """
        record = self.get(owner, id, kind=kind)
        if record is None:
            return None
        record = self._redacted(replace(record, metadata=dict(metadata), edited=None, rating=None))
        with self._database.begin() as connection:
            changed = connection.execute(
                update(_records)
                .where(_is(owner, id, kind))
                .values(metadata=record.metadata, rating=record.rating, edited=record.edited)
            )
            if not changed.rowcount:
                return None
            connection.execute(delete(_labels).where(_labels.c.record == id))
            self._label(connection, record)
        return record

    def delete(self, owner: str, id: str, *, kind: Kind) -> bool:
        """Forget it; false where there is none."""
        with self._database.begin() as connection:
            gone = connection.execute(delete(_records).where(_is(owner, id, kind))).rowcount
            if gone:
                connection.execute(delete(_labels).where(_labels.c.record == id))
        return bool(gone)

    # -------------------------------------------------------------------------------------------- many records

    def list(
        self,
        owner: str,
        *,
        kind: Kind,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = False,
    ) -> tuple[Sequence[Record], bool]:
        """A page, and whether more follow. An ``after`` that is not there is 404: paging would begin anew.

        A label that the redactor would have changed is 400: it was stored as a placeholder, which is everybody's.
        """
        table = _records.c
        wanted: list[ColumnElement[bool]] = [table.owner == owner, table.kind == kind]
        if model is not None:
            wanted.append(table.model == model)
        labels = dict(metadata or {})
        if self._redacting.labels(labels) != labels:
            raise ApiError(
                400, "'metadata': private keys and values are stored as placeholders and cannot be searched for",
                param="metadata", code="invalid_value",
            )  # fmt: skip
        for key, value in labels.items():
            label = _labels.alias()
            wanted.append(
                select(label.c.record)
                .where(label.c.record == table.id, label.c.key == key, label.c.value == value)
                .exists()
            )
        with self._database.read() as connection:
            if after:
                start = connection.execute(select(table.seq).where(_is(owner, after, kind))).scalar()
                if start is None:
                    raise ApiError(404, "'after' is not an id of this list", param="after", code="not_found")
                wanted.append(table.seq < start if newest_first else table.seq > start)
            order = table.seq.desc() if newest_first else table.seq.asc()
            rows = connection.execute(select(_records).where(and_(*wanted)).order_by(order).limit(limit + 1)).all()
        return [_record(row) for row in rows[:limit]], len(rows) > limit

    def expire(self) -> int:
        """Delete what is older than ``retention_days``; how many that were."""
        if self._settings.retention_days is None:
            return 0
        oldest = int(time.time()) - self._settings.retention_days * DAY_SECONDS
        old = select(_records.c.id).where(_records.c.created < oldest)
        with self._database.begin() as connection:
            connection.execute(delete(_labels).where(_labels.c.record.in_(old)))
            return connection.execute(delete(_records).where(_records.c.created < oldest)).rowcount

    def all(self, owner: str | None) -> Iterator[Record]:
        """Every record of an owner (``None``: of all), oldest first; read in parts, so that memory does not grow."""
        last = 0
        while True:
            wanted = _records.c.seq > last
            if owner is not None:
                wanted = and_(wanted, _records.c.owner == owner)
            with self._database.read() as connection:
                rows = connection.execute(select(_records).where(wanted).order_by(_records.c.seq).limit(500)).all()
            if not rows:
                return
            last = rows[-1].seq
            yield from map(_record, rows)

    # -------------------------------------------------------------------------------------------------- inside

    def _redacted(self, record: Record) -> Record:
        """Without private data; with rating and edited answer taken from the metadata."""
        given = dict(without_nul(record.metadata))
        rating = given.get("rating")
        if rating is not None and rating.strip().lower() not in RATINGS:
            raise ApiError(
                400, f"'metadata.rating' is one of {', '.join(RATINGS)}", param="metadata.rating", code="invalid_value"
            )
        asked = {"messages": record.messages, "answer": record.answer, "settings": record.settings}
        if given.get("edited"):
            asked["edited"] = [{"role": "assistant", "content": given["edited"]}]
        found, types = self._redacting.conversation(without_nul(asked))
        labels = self._redacting.labels({key: value for key, value in given.items() if key != "edited"})
        edited = found["edited"][0]["content"] if "edited" in found else None
        kept = labels if edited is None else {**labels, "edited": edited}
        prompt = json.dumps([found["messages"], record.tools], sort_keys=True)
        before = record.redaction.get("types", {})
        return replace(
            record,
            messages=found["messages"],
            # OpenAI's object of a response holds the metadata once more
            answer=found["answer"] | ({"metadata": kept} if "metadata" in found["answer"] else {}),
            settings=found["settings"],
            tools=without_nul(record.tools),
            metadata=kept,
            rating=None if rating is None else RATINGS[rating.strip().lower()],
            edited=edited,
            redaction={"state": "redacted", "types": {**before, **types}},
            prompt_hash=hashlib.sha256(prompt.encode()).hexdigest(),
        )

    def _label(self, connection: Any, record: Record) -> None:
        pairs = [
            {"record": record.id, "key": key, "value": value}
            for key, value in record.metadata.items()
            if key != "edited"
        ]
        if pairs:
            connection.execute(insert(_labels), pairs)


_OF_ROW = (
    "id", "kind", "owner", "model", "model_hash", "created", "answer", "metadata", "rating", "edited", "redaction",
    "prompt_hash",
)  # fmt: skip


def _is(owner: str, id: str, kind: Kind) -> ColumnElement[bool]:
    return and_(_records.c.owner == owner, _records.c.id == id.replace("\x00", ""), _records.c.kind == kind)


def _record(row: Row[Any]) -> Record:
    return Record(**{name: getattr(row, name) for name in _OF_ROW}, **row.prompt)
