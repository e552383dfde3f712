"""The record: one Arrow schema for conversations, documents and preferences, and the shards that hold it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SHARD_BYTES = 64_000_000

MESSAGE = pa.struct(
    [
        ("role", pa.string()),  # system | user | assistant | tool
        ("content", pa.string()),
        ("name", pa.string()),
        ("tool_calls", pa.string()),  # JSON text
        ("tool_call_id", pa.string()),
        ("weight", pa.int8()),  # 0 | 1: is this message trained? null: 1 for the assistant, 0 for the others
        ("time", pa.string()),
    ]
)

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # hash of source file, position and content: stable over runs
        ("kind", pa.string()),  # conversation | document | preference
        ("messages", pa.list_(MESSAGE)),
        ("tools", pa.string()),  # JSON text
        ("text", pa.string()),  # documents
        ("chosen", pa.list_(MESSAGE)),
        ("rejected", pa.list_(MESSAGE)),
        ("desirable", pa.bool_()),
        (
            "source",
            pa.struct([("file", pa.string()), ("format", pa.string()), ("line", pa.int64()), ("offset", pa.int64())]),
        ),
        ("group", pa.string()),  # customer or thread: one group never stands in two splits
        ("language", pa.string()),
        ("rating", pa.float64()),
        ("synthetic", pa.bool_()),
        ("tags", pa.list_(pa.string())),
    ]
)

_MESSAGES = pa.list_(MESSAGE)
_REPEATED = [  # columns of few different values; texts and ids are not worth a dictionary
    "kind", "messages.list.element.role", "messages.list.element.name", "chosen.list.element.role", "source.file",
    "source.format", "group", "language", "rejected.list.element.role", "tags.list.element",
]  # fmt: skip
_EMPTY_MESSAGE = dict.fromkeys(field.name for field in MESSAGE)  # made once: it stands in every message
_ROLE, _CONTENT = itemgetter("role"), itemgetter("content")
Record = dict[str, Any]  # a row of SCHEMA as Python values; fields of its messages that are null may be left out


def message(role: str, content: str, **fields: Any) -> dict[str, Any]:
    """A row of :data:`MESSAGE` with every field present."""
    return {**_EMPTY_MESSAGE, "role": role, "content": content, **fields}


def record(
    kind: str,
    *,
    file: str,
    format: str,
    line: int,
    offset: int | None = None,
    **fields: Any,
) -> Record:
    """A row of :data:`SCHEMA` with every field present and its ``id`` made.

    ``line`` counts from 1. The id hashes the source's name, the position and the content, so that equal rows on
    two lines have different ids and the same file gives the same ids on every machine.
    """
    row: Record = dict.fromkeys(SCHEMA.names)
    row |= {"kind": kind, "synthetic": False, "tags": []}
    row["source"] = {"file": file, "format": format, "line": line, "offset": offset}
    row |= fields
    row["id"] = hashlib.sha256(f"{file}\0{line}\0{offset}\0{content_key(row)}".encode()).hexdigest()[:24]
    return row


def place(row: Record) -> str:
    """Where a record was read, for messages: ``faq.csv line 7``."""
    return f"{row['source']['file']} line {row['source']['line']}"


def only_texts(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether messages hold nothing but a role and a text."""
    return sum(map(len, turns)) == 2 * len(turns)


def content_key(row: Record) -> str:
    """The text of a record, messages separated by control characters: equal keys mean exact duplicates."""
    parts = [row["text"] or ""]
    for name in ("messages", "chosen", "rejected"):
        turns = row[name] or ()
        if only_texts(turns):
            parts += [f"{turn['role']}\x1f{turn['content']}\x1f" for turn in turns]
        else:
            parts += [f"{turn['role']}\x1f{turn['content']}\x1f{turn.get('tool_calls') or ''}" for turn in turns]
    return "\x1e".join(parts)


class ShardWriter:
    """Write record batches as ``00000.parquet``, ``00001.parquet``, ... of about ``shard_bytes`` of text each.

    >>> import tempfile
    >>> with ShardWriter(Path(tempfile.mkdtemp())) as writer:
    ...     writer.write(pa.RecordBatch.from_pylist([record("document", file="a", format="text", line=1, text="hi")],
    ...                                             schema=SCHEMA))
    """

    def __init__(self, directory: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.directory, self.shard_bytes = directory, shard_bytes
        self.rows = 0
        self._shard, self._bytes = 0, 0
        self._writer: pq.ParquetWriter | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def write(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows == 0:
            return
        if self._writer is None:
            path = self.directory / f"{self._shard:05d}.parquet"
            self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=_REPEATED)
        self._writer.write_batch(batch)
        self.rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._bytes >= self.shard_bytes:
            self.close()
            self._shard, self._bytes = self._shard + 1, 0

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shards(directory: Path) -> list[Path]:
    """The shards of a directory in order."""
    return sorted(directory.glob("[0-9]*.parquet"))


def read_batches(directory: Path, rows: int = 4096, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """All records of a directory in order, ``rows`` at a time: memory stays bounded. ``columns``: none means all."""
    for path in shards(directory):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=rows, columns=columns)


def read_records(directory: Path) -> Iterator[Record]:
    """All records of a directory as Python values."""
    for batch in read_batches(directory):
        yield from batch.to_pylist()


def batched(rows: Iterable[Record], size: int = 1024, characters: int = 8_000_000) -> Iterator[pa.RecordBatch]:
    """Python rows to record batches of :data:`SCHEMA`, of at most ``size`` rows and about ``characters`` of text."""
    held: list[Record] = []
    held_characters = 0
    for row in rows:
        held.append(row)
        held_characters += len(row["text"] or "")
        for name in ("messages", "chosen", "rejected"):
            if row[name]:
                held_characters += sum(map(len, map(_CONTENT, row[name])))
        if len(held) == size or held_characters > characters:
            yield to_batch(held)
            held, held_characters = [], 0
    if held:
        yield to_batch(held)


def to_batch(rows: Sequence[Record]) -> pa.RecordBatch:
    """Records as a batch of :data:`SCHEMA`, what ``RecordBatch.from_pylist`` gives in half the time."""
    arrays = []
    for field in SCHEMA:
        values = [row[field.name] for row in rows]
        arrays.append(_message_lists(values) if field.type == _MESSAGES else pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _message_lists(values: Sequence[list[dict[str, Any]] | None]) -> pa.ListArray:
    turns = [turn for value in values if value for turn in value]
    columns = [pa.array(list(map(read, turns)), pa.string()) for read in (_ROLE, _CONTENT)]
    plain = only_texts(turns)
    columns += [
        pa.nulls(len(turns), field.type) if plain else pa.array([turn.get(field.name) for turn in turns], field.type)
        for field in list(MESSAGE)[2:]
    ]
    offsets: list[int | None] = []
    end = 0
    for value in values:
        offsets.append(None if value is None else end)  # no offset: there is no list
        end += len(value or ())
    return pa.ListArray.from_arrays(
        pa.array([*offsets, end], pa.int32()), pa.StructArray.from_arrays(columns, fields=list(MESSAGE))
    )
