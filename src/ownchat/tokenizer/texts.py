"""The text of a run, as a tokenizer is to see it: column by column, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.batches import count_messages, flat_messages, has_kind, rows_of
from ownchat.data.records import read_batches

COLUMNS = ["kind", "messages", "tools", "text", "chosen", "rejected"]
ROWS = 512  # read at once: a record can be a whole book
PIECE = 65_536  # characters; the tokenizers library keeps about forty bytes for each byte that it works on


@dataclass(frozen=True)
class Amount:
    """Bytes of text (UTF-8) in all, and for each conversation: int64 [conversations]."""

    num_bytes: int
    conversation_bytes: np.ndarray
    conversation_turns: np.ndarray


def amount_of(directory: Path) -> Amount:
    """How much text the records of a directory hold."""
    total = 0
    sizes, turns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for batch in read_batches(directory, ROWS, COLUMNS):
        total += sum(_num_bytes(column) for column in _columns(batch))
        talks = has_kind(batch, "conversation")
        of_message = pc.fill_null(pc.binary_length(flat_messages(batch).field("content")), 0).to_numpy()
        of_record = np.bincount(rows_of(batch), weights=of_message, minlength=len(batch)).astype(np.int64)
        sizes.append(of_record[talks])
        turns.append(count_messages(batch)[talks])
    return Amount(total, np.concatenate(sizes), np.concatenate(turns))


def texts(directory: Path, *, roles: bool = False, advance: Callable[[int], None] | None = None) -> Iterator[str]:
    """Every text of a directory's records, in order: documents, messages, tool calls, tools; none is empty.

    A text of more than :data:`PIECE` characters comes in pieces, end to end. ``roles``: also the names of the
    messages' roles, as often as they stand there, because the chat template writes them before each turn.
    ``advance`` is told the bytes that were read.
    """
    for batch in read_batches(directory, ROWS, COLUMNS):
        for column in _columns(batch):
            for text in column.to_pylist():
                if len(text) <= PIECE:
                    yield text
                else:
                    yield from cut(text)
            if advance is not None:
                advance(_num_bytes(column))
        if roles and (names := flat_messages(batch).field("role").drop_null().to_pylist()):
            yield from cut("\n".join(names) + "\n")


def cut(text: str, size: int = PIECE) -> Iterator[str]:
    """A text as pieces of at most ``size`` characters, end to end; cut before white space where there is some.

    >>> list(cut("one two three", 8))
    ['one two', ' three']
    """
    start = 0
    while len(text) - start > size:
        end = max(text.rfind(space, start + 1, start + size + 1) for space in "\n ")
        end = end if end > start else start + size
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _columns(batch: pa.RecordBatch) -> list[pa.Array]:
    """The texts of a batch, column by column, without those that are null or empty."""
    found = [batch.column("text"), batch.column("tools")]
    for name in ("messages", "chosen", "rejected"):
        turns = batch.column(name).flatten()
        found += [turns.field("content"), turns.field("tool_calls")]
    return [column.filter(pc.greater(pc.binary_length(column), 0)) for column in found]


def _num_bytes(column: pa.Array) -> int:
    return pc.sum(pc.binary_length(column)).as_py() or 0
