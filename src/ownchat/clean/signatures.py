"""Short hashes of records, from which duplicates and the three splits are found without their text.

A few dozen bytes a record stay in memory while any number of shards goes by.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.steps import count_messages

SHORT_OPENING = 16  # characters: "Hi there!" is a greeting, the question comes with the next turn
REPLY_WORDS = 4  # an answer of fewer words is a label ("yes", "card_arrival"), shared by what has little in common


@dataclass(frozen=True)
class Signatures:
    """One entry a record; a key of 0 means that the record has none."""

    ids: np.ndarray  # (n,) bytes, as in the ledger
    content: np.ndarray  # (n, 2) uint64: 128 bits of everything, white space and case folded
    group: np.ndarray  # (n,) uint64: customer or thread
    question: np.ndarray  # (n,) uint64: first user message, or document text
    answer: np.ndarray  # (n,) uint64: last assistant message of a conversation with one question
    is_document: np.ndarray  # (n,) bool
    messages: np.ndarray  # (n,) int64: how many

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: np.ndarray) -> Signatures:
        return Signatures(*(getattr(self, field.name)[indices] for field in fields(self)))


def signatures(batch: pa.RecordBatch) -> Signatures:
    """The hashes of one batch."""
    lists = batch.column("messages")
    flat, lengths = lists.flatten(), count_messages(batch)
    rows = np.repeat(np.arange(len(batch)), lengths)
    contents, roles = normalised(flat.field("content")), pc.fill_null(flat.field("role"), "")
    calls = pc.fill_null(flat.field("tool_calls"), "")
    joined = pc.binary_join_element_wise(roles, contents, calls, "\x1f")
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    dialogue = pc.binary_join(pa.ListArray.from_arrays(offsets, joined), "\x1e")
    texts = normalised(batch.column("text"))
    content = pc.binary_join_element_wise(batch.column("kind"), texts, dialogue, "\x1d")

    from_user = pc.equal(roles, "user").to_numpy(zero_copy_only=False).astype(bool)
    from_assistant = pc.equal(roles, "assistant").to_numpy(zero_copy_only=False).astype(bool)
    is_document = pc.equal(batch.column("kind"), "document").to_numpy(zero_copy_only=False).astype(bool)
    one_question = np.bincount(rows[from_user], minlength=len(batch)) == 1
    return Signatures(
        ids=np.array(batch.column("id").to_pylist(), dtype="S24"),
        content=_digests(content.to_pylist(), 2),
        group=_keys(batch.column("group").to_pylist()),
        question=np.where(is_document, _keys(texts.to_pylist()), _questions(contents, rows, from_user, len(batch))),
        answer=_answers(contents, rows, from_assistant, one_question, len(batch)),
        is_document=is_document,
        messages=lengths,
    )


def concatenate(parts: Iterable[Signatures]) -> Signatures:
    """The signatures of several batches in order."""
    parts = list(parts)
    return Signatures(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Signatures)))


def normalised(texts: pa.Array) -> pa.Array:
    """Text with case folded and white space collapsed; null becomes empty.

    >>> normalised(pa.array([" Where is\\u00a0my\\n\\nORDER? ", None])).to_pylist()
    ['where is my order?', '']
    """
    folded = pc.utf8_lower(pc.utf8_normalize(pc.fill_null(texts, ""), form="NFC"))
    return pc.utf8_trim(pc.replace_substring_regex(folded, r"[\s\p{Z}]+", " "), " ")


# ----------------------------------------------------------------------------------------------------------------


def _questions(contents: pa.Array, rows: np.ndarray, from_user: np.ndarray, count: int) -> np.ndarray:
    """Key of each row's first user message; after a short opening the second one belongs to it."""
    indices = np.flatnonzero(from_user)
    owners, first = np.unique(rows[indices], return_index=True)
    keys = np.zeros(count, np.uint64)
    if not len(owners):
        return keys
    opening = contents.take(pa.array(indices[first])).to_pylist()
    following = np.full(len(owners), -1)
    has_next = (first + 1 < len(indices)) & (rows[indices[np.minimum(first + 1, len(indices) - 1)]] == owners)
    following[has_next] = indices[first[has_next] + 1]
    for place, (text, second) in enumerate(zip(opening, following.tolist(), strict=True)):
        if len(text) < SHORT_OPENING and second >= 0:
            opening[place] = f"{text}\x1e{contents[second].as_py()}"
    keys[owners] = _keys(opening)
    return keys


def _answers(
    contents: pa.Array, rows: np.ndarray, from_assistant: np.ndarray, one_question: np.ndarray, count: int
) -> np.ndarray:
    """Key of each row's last assistant message, where it is the answer to the only question."""
    indices = np.flatnonzero(from_assistant & one_question[rows]) if len(rows) else np.empty(0, np.int64)
    owners, from_end = np.unique(rows[indices][::-1], return_index=True)
    keys = np.zeros(count, np.uint64)
    if len(owners):
        last = contents.take(pa.array(indices[::-1][from_end])).to_pylist()
        keys[owners] = _keys([text if text.count(" ") >= REPLY_WORDS - 1 else "" for text in last])
    return keys


def _keys(texts: list[str | None]) -> np.ndarray:
    keys = _digests(texts, 1)[:, 0]
    keys[[not text for text in texts]] = 0
    return keys


def _digests(texts: list[str | None], words: int) -> np.ndarray:
    """``words`` 64-bit numbers of each text: shape ``(n, words)``."""
    size = 8 * words
    digests = b"".join(blake2b((text or "").encode(), digest_size=size).digest() for text in texts)
    return np.frombuffer(digests, "<u8").reshape(-1, words).copy()
