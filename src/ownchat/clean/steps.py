"""The steps that see one batch at a time: ``step(RecordBatch) -> (RecordBatch, entries of the ledger)``.

A record that a step leaves out of its batch has a "dropped" entry of unit ``row``. Work on text is done by pyarrow's
compute functions on whole columns; only what they single out reaches Python.

To add a step: one function and one line in :data:`STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable

import ftfy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ftfy.badness import is_bad

from ownchat.config import CleanConfig
from ownchat.data.ledger import Entry
from ownchat.data.records import MESSAGE, SCHEMA

Step = Callable[[pa.RecordBatch], tuple[pa.RecordBatch, list[Entry]]]

# Wherever ftfy's own test finds mojibake (tests compare the two), and in little else: a control character U+0080 to
# U+009F, one of the letters that UTF-8's first bytes turn into, or a sign or accented capital that touches another
# character beyond ASCII. Pairs of Cyrillic, Greek, Chinese or small accented letters are not suspicious.
_SIGN = r"\x{80}-\x{de}\x{f7}\x{100}-\x{36f}\x{2000}-\x{2bff}\x{f000}-\x{fb06}\x{fffd}"
_SUSPICIOUS = rf"[\x{{80}}-\x{{9f}}ÂÃŒœ]|[{_SIGN}][^\x00-\x7f]|[^\x00-\x7f][{_SIGN}]|вЂ|ГўВЂВ|[ØÙ][\x00-\x7f]?[ØÙ]"


def repair_encoding(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[Entry]]:
    """Mend text that was decoded with the wrong encoding: ``cafÃ©`` becomes ``café``. Nothing else is normalised.

    Line by line, so that one line that cannot be mended does not hinder the others (ftfy, R. Speer, 2019).
    """
    changed: dict[int, int] = {}  # row -> messages (or documents) mended
    messages = _flat(batch)
    contents, mended = _repair(messages.field("content"))
    if len(mended):
        for row in _rows_of(batch)[mended].tolist():
            changed[row] = changed.get(row, 0) + 1
        batch = _with_messages(batch, _replace(messages, contents))
    texts, mended = _repair(batch.column("text"))
    if len(mended):
        changed |= dict.fromkeys(mended.tolist(), 1)
        batch = _set(batch, "text", texts)
    ids = batch.column("id")
    entries = [
        Entry("row", ids[row].as_py(), "changed", "encoding repaired", detail=f"{count} text{'s' if count > 1 else ''}")
        for row, count in sorted(changed.items())
    ]
    return batch, entries


def drop_empty(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[Entry]]:
    """Take out messages without text (but not tool calls and tools' results), and records without anything to learn.

    A conversation needs a message of the assistant, a document needs text.
    """
    entries: list[Entry] = []
    messages, rows = _flat(batch), _rows_of(batch)
    empty = pc.and_(
        pc.and_(_is_blank(messages.field("content")), _is_blank(messages.field("tool_calls"))),
        pc.not_equal(messages.field("role"), "tool"),
    )
    empty = empty.to_numpy(zero_copy_only=False).astype(bool)
    ids = batch.column("id")
    if empty.any():
        places = np.arange(len(rows)) - np.searchsorted(rows, rows)  # number within its conversation
        for index in np.flatnonzero(empty).tolist():
            id = ids[int(rows[index])].as_py()
            entries.append(Entry("message", f"{id}#{places[index]}", "dropped", "empty message", parents=(id,)))
        messages, rows = messages.filter(pa.array(~empty)), rows[~empty]
        batch = _with_messages(batch, messages, np.bincount(rows, minlength=len(batch)))
    count = np.bincount(rows, minlength=len(batch))
    from_assistant = pc.equal(messages.field("role"), "assistant").to_numpy(zero_copy_only=False).astype(bool)
    replies = np.bincount(rows[from_assistant], minlength=len(batch))
    is_document = pc.equal(batch.column("kind"), "document").to_numpy(zero_copy_only=False)
    is_conversation = pc.equal(batch.column("kind"), "conversation").to_numpy(zero_copy_only=False)
    blank = _is_blank(batch.column("text")).to_numpy(zero_copy_only=False)
    nothing = (is_document & blank) | (is_conversation & (count == 0))
    no_reply = is_conversation & (replies == 0) & ~nothing
    for index in np.flatnonzero(nothing | no_reply).tolist():
        id, rule = ids[index].as_py(), "empty" if nothing[index] else "no assistant turn"
        entries.append(Entry("row", id, "dropped", rule, parents=(id,)))
        if count[index]:
            entries.append(Entry("message", id, "dropped", rule, count=int(count[index]), parents=(id,)))
    if len(entries):
        batch = batch.filter(pa.array(~(nothing | no_reply)))
    return batch, entries


STEPS: tuple[tuple[Step, Callable[[CleanConfig], bool]], ...] = (
    (repair_encoding, lambda config: config.repair_encoding),
    (drop_empty, lambda config: True),
)


def count_messages(batch: pa.RecordBatch) -> np.ndarray:
    """Messages of each record: integers of shape ``(num_rows,)``."""
    lengths = pc.fill_null(pc.list_value_length(batch.column("messages")), 0)
    return lengths.to_numpy(zero_copy_only=False).astype(np.int64)


# ------------------------------------------------------------------------------------------------- Arrow's nested types


def _repair(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """A column with its mojibake mended, and the indices of what changed."""
    suspects = pc.fill_null(pc.match_substring_regex(texts, _SUSPICIOUS), False)
    indices = np.flatnonzero(suspects.to_numpy(zero_copy_only=False))
    fixed: dict[int, str] = {}
    for index in indices.tolist():
        before = texts[index].as_py()
        after = "\n".join(ftfy.fix_encoding(line) if is_bad(line) else line for line in before.split("\n"))
        if after != before:
            fixed[index] = after
    if not fixed:
        return texts, np.empty(0, np.int64)
    changed = np.fromiter(fixed, np.int64, len(fixed))
    mask = np.zeros(len(texts), bool)
    mask[changed] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array(list(fixed.values()), pa.string())), changed


def _is_blank(texts: pa.Array) -> pa.Array:
    """Whether each text is null or nothing but white space, of any script."""
    return pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0), True)


def _flat(batch: pa.RecordBatch) -> pa.StructArray:
    """The messages of all records in one array."""
    return batch.column("messages").flatten()


def _rows_of(batch: pa.RecordBatch) -> np.ndarray:
    """For each message of :func:`_flat` the row that it belongs to."""
    return np.repeat(np.arange(len(batch)), count_messages(batch))


def _replace(messages: pa.StructArray, contents: pa.Array) -> pa.StructArray:
    columns = [contents if field.name == "content" else messages.field(field.name) for field in MESSAGE]
    return pa.StructArray.from_arrays(columns, fields=list(MESSAGE))


def _with_messages(batch: pa.RecordBatch, flat: pa.StructArray, lengths: np.ndarray | None = None) -> pa.RecordBatch:
    """The batch with other messages, ``lengths`` of them in each row (as many as before when none are given)."""
    lengths = count_messages(batch) if lengths is None else lengths
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    lists = pa.ListArray.from_arrays(
        offsets, flat, type=pa.list_(MESSAGE), mask=pc.is_null(batch.column("messages"))
    )  # fmt: skip
    return _set(batch, "messages", lists)


def _set(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    columns = [column if field.name == name else batch.column(field.name) for field in SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
