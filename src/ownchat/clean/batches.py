"""Reading and changing the messages inside a record batch: Arrow's nested lists as flat columns.

Everything here keeps the schema; what is taken out comes back with its entries for the ledger.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.data.ledger import Entry
from ownchat.data.records import MESSAGE, SCHEMA

Cleaned = tuple[pa.RecordBatch, list[Entry]]  # what a step hands back


def count_messages(batch: pa.RecordBatch) -> np.ndarray:
    """Messages of each record: integers of shape ``(num_rows,)``."""
    lengths = pc.fill_null(pc.list_value_length(batch.column("messages")), 0)
    return lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def flat_messages(batch: pa.RecordBatch) -> pa.StructArray:
    """The messages of all records in one array."""
    return batch.column("messages").flatten()


def rows_of(batch: pa.RecordBatch) -> np.ndarray:
    """For each message of :func:`flat_messages` the row that it belongs to."""
    return np.repeat(np.arange(len(batch)), count_messages(batch))


def as_mask(values: pa.Array) -> np.ndarray:
    """Arrow booleans as numpy's; null is false."""
    return pc.fill_null(values, False).to_numpy(zero_copy_only=False).astype(bool)


def has_kind(batch: pa.RecordBatch, kind: str) -> np.ndarray:
    """Which records are a ``conversation``, ``document`` or ``preference``."""
    return as_mask(pc.equal(batch.column("kind"), kind))


def is_spoken(messages: pa.StructArray) -> np.ndarray:
    """Which messages a person or the assistant said: neither system prompts nor tools' results nor calls alone."""
    role = messages.field("role")
    return as_mask(pc.or_(pc.equal(role, "user"), pc.equal(role, "assistant"))) & ~is_blank(messages.field("content"))


def is_blank(texts: pa.Array) -> np.ndarray:
    """Whether each text is null or nothing but white space, of any script."""
    return as_mask(pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0), True))


def matches(texts: pa.Array, pattern: str) -> np.ndarray:
    """Which texts hold the RE2 pattern; null does not."""
    return as_mask(pc.match_substring_regex(texts, pattern))


def replace_messages(messages: pa.StructArray, **columns: pa.Array) -> pa.StructArray:
    """The messages with some of their columns replaced: ``content=...``, ``weight=...``."""
    fields = [columns.get(field.name, messages.field(field.name)) for field in MESSAGE]
    return pa.StructArray.from_arrays(fields, fields=list(MESSAGE))


def with_messages(batch: pa.RecordBatch, flat: pa.StructArray, lengths: np.ndarray | None = None) -> pa.RecordBatch:
    """The batch with other messages, ``lengths`` of them in each row (as many as before when none are given)."""
    lengths = count_messages(batch) if lengths is None else lengths
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    lists = pa.ListArray.from_arrays(
        offsets, flat, type=pa.list_(MESSAGE), mask=pc.is_null(batch.column("messages"))
    )  # fmt: skip
    return with_column(batch, "messages", lists)


def with_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    """The batch with one column replaced."""
    columns = [column if field.name == name else batch.column(field.name) for field in SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def with_texts(texts: pa.Array, changed: Mapping[int, str]) -> pa.Array:
    """A column of texts with some of them replaced, by index."""
    if not changed:
        return texts
    order = sorted(changed)
    mask = np.zeros(len(texts), bool)
    mask[order] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array([changed[index] for index in order], pa.string()))


def normalize(texts: pa.Array, form: Literal["NFC", "NFKC"]) -> pa.Array:
    """Unicode's normal form of each text. Before version 26 Arrow's own function decomposed, whatever it was asked."""
    doubtful = np.flatnonzero(~as_mask(pc.fill_null(pc.string_is_ascii(texts), True)))
    found = texts.take(pa.array(doubtful)).to_pylist()
    changed = zip(doubtful.tolist(), (unicodedata.normalize(form, text) for text in found), found, strict=True)
    return with_texts(texts, {place: new for place, new, old in changed if new != old})


def with_tag(batch: pa.RecordBatch, rows: Sequence[int] | np.ndarray, tag: str) -> pa.RecordBatch:
    """The batch with ``tag`` added to the tags of ``rows`` that do not have it."""
    tags = batch.column("tags").to_pylist()
    for row in rows:
        if tag not in (tags[row] or ()):
            tags[row] = [*(tags[row] or ()), tag]
    return with_column(batch, "tags", pa.array(tags, pa.list_(pa.string())))


def drop_messages(batch: pa.RecordBatch, gone: np.ndarray, rule: str) -> Cleaned:
    """Take out the messages where ``gone`` (one flag each) is true; records without a message stay, empty."""
    if not gone.any():
        return batch, []
    rows, ids = rows_of(batch), batch.column("id")
    places = np.arange(len(rows)) - np.searchsorted(rows, rows)  # number within its conversation
    entries = []
    for index in np.flatnonzero(gone).tolist():
        id = ids[int(rows[index])].as_py()
        entries.append(Entry("message", f"{id}#{places[index]}", "dropped", rule, parents=(id,)))
    lengths = np.bincount(rows[~gone], minlength=len(batch))
    return with_messages(batch, flat_messages(batch).filter(pa.array(~gone)), lengths), entries


def drop_rows(batch: pa.RecordBatch, rules: Mapping[int, str], details: Mapping[int, str] | None = None) -> Cleaned:
    """Take out the records at the given rows, each by its rule; their messages are accounted for."""
    if not rules:
        return batch, []
    counts, ids = count_messages(batch), batch.column("id")
    entries = []
    for row, rule in sorted(rules.items()):
        id, detail = ids[row].as_py(), (details or {}).get(row, "")
        entries.append(Entry("row", id, "dropped", rule, parents=(id,), detail=detail))
        if counts[row]:
            entries.append(Entry("message", id, "dropped", rule, count=int(counts[row]), parents=(id,)))
    kept = np.ones(len(batch), bool)
    kept[list(rules)] = False
    return batch.filter(pa.array(kept)), entries


_ONE_RECORD_A_FILE = ["text", "markdown", "html", "pdf", "docx", "pptx", "odt", "epub", "mail"]


def sources(batch: pa.RecordBatch) -> list[str]:
    """Where each record comes from: its file; or its format and folder where each file holds a record or so."""
    source = batch.column("source")
    files, formats = pc.fill_null(source.field("file"), ""), pc.fill_null(source.field("format"), "")
    folders = pc.binary_join_element_wise(formats, pc.replace_substring_regex(files, r"[^/]*$", ""), ":")
    return pc.if_else(pc.is_in(formats, pa.array(_ONE_RECORD_A_FILE)), folders, files).to_pylist()
