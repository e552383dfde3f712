"""Short hashes of records, from which duplicates and the three splits are found without their text.

About a hundred bytes a record stay in memory while any number of shards goes by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.batches import as_mask, count_messages, normalize
from ownchat.clean.shingles import Folded, count_words, fold, gather, text_keys

SHORT_OPENING = 16  # characters: "Hi there!" is a greeting, the question comes with the next turn
REPLY_WORDS = 4  # an answer of fewer words is a label ("yes", "card_arrival"), shared by what has little in common
LONG_REPLY = 8  # words: a reply of as many must not stand on both sides of a split, wherever in a conversation it is
_LONGEST = 1_000_000  # characters of one message or document that are compared with other texts


Order = Callable[[np.ndarray, np.ndarray], np.ndarray]


def in_order(keys: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The indices of ``keys`` in ascending order; equal ones in order of ``other``, then as they stand.

    >>> in_order(np.array([2, 1, 2, 2]), np.array([5, 5, 4, 5])).tolist()
    [1, 2, 0, 3]
    """
    return np.lexsort((other, keys))


@dataclass(frozen=True)
class Signatures:
    """One entry a record; a key of 0 means that the record has none."""

    ids: np.ndarray  # (n,) bytes, as in the ledger
    content: np.ndarray  # (n, 2) uint64: 128 bits of everything, white space and case folded
    group: np.ndarray  # (n,) uint64: customer or thread
    question: np.ndarray  # (n,) uint64: first user message, or document text
    answer: np.ndarray  # (n,) uint64: last assistant message of a conversation with one question
    is_document: np.ndarray  # (n,) bool
    is_preference: np.ndarray  # (n,) bool
    messages: np.ndarray  # (n,) int64: how many
    num_replies: np.ndarray  # (n,) int64: how many of the following belong to each record
    replies: np.ndarray  # (sum of num_replies,) uint64: every reply of eight words or more

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: np.ndarray) -> Signatures:
        counts = self.num_replies[indices]
        first = np.concatenate([[0], np.cumsum(self.num_replies)])[indices]
        places = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return Signatures(
            **{name: column[places if name == "replies" else indices] for name, column in columns.items()}
        )

    def reply_rows(self) -> np.ndarray:
        """The record of each reply."""
        return np.repeat(np.arange(len(self)), self.num_replies)

    def save(self, path: Path) -> None:
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @staticmethod
    def load(path: Path) -> Signatures:
        with np.load(path) as stored:
            return Signatures(*(stored[field.name] for field in fields(Signatures)))


@dataclass(frozen=True)
class Sides:
    """The folded text of records, without system prompts, and their long replies."""

    asked: Folded  # users' and tools' messages, or the text of a document
    answered: Folded  # the assistant's, and a preference's two answers
    reply_rows: np.ndarray  # ascending
    replies: np.ndarray  # uint64


def sides(batch: pa.RecordBatch) -> Sides:
    """What the records of one batch ask and what they answer; give it some megabytes at a time."""
    texts, rows, replied, asked = [], [], [], []
    for name in ("messages", "chosen", "rejected"):
        lists = batch.column(name)
        flat = lists.flatten()
        role, calls = pc.fill_null(flat.field("role"), ""), flat.field("tool_calls")
        contents = pc.fill_null(_bounded(flat.field("content")), "")
        if calls.null_count < len(calls):
            contents = pc.binary_join_element_wise(contents, pc.fill_null(_bounded(calls), ""), " ")
        texts.append(contents)
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        rows.append(np.repeat(np.arange(len(batch)), lengths))
        from_assistant = as_mask(pc.equal(role, "assistant"))
        replied.append(from_assistant | (name != "messages"))
        asked.append(~replied[-1] & ~as_mask(pc.equal(role, "system")))
    texts.append(pc.fill_null(_bounded(batch.column("text")), ""))
    rows.append(np.arange(len(batch)))
    replied.append(np.zeros(len(batch), bool))
    asked.append(np.ones(len(batch), bool))
    row, is_reply, is_asked = np.concatenate(rows), np.concatenate(replied), np.concatenate(asked)
    everything = pa.concat_arrays(texts)
    folded = fold(everything)
    order = np.argsort(row, kind="stable")
    answers, questions = order[is_reply[order]], order[is_asked[order]]
    blanks = pc.count_substring(everything, " ").to_numpy(zero_copy_only=False) + 1
    words = np.maximum(count_words(folded), np.where(folded.lengths() > 0, blanks, 0))
    long = answers[words[answers] >= LONG_REPLY]
    return Sides(
        asked=gather(folded, questions, row[questions], len(batch)),
        answered=gather(folded, answers, row[answers], len(batch)),
        reply_rows=row[long],
        replies=text_keys(folded)[long],
    )


def signatures(batch: pa.RecordBatch, said: Sides | None = None) -> Signatures:
    """The hashes of one batch; ``said``: its :func:`sides`, where they are known."""
    said = said or sides(batch)
    lists = batch.column("messages")
    flat, lengths = lists.flatten(), count_messages(batch)
    rows = np.repeat(np.arange(len(batch)), lengths)
    contents, roles = normalised(flat.field("content")), pc.fill_null(flat.field("role"), "")
    calls = pc.fill_null(flat.field("tool_calls"), "")
    joined = pc.binary_join_element_wise(roles, contents, calls, "\x1f")
    dialogue = _listed(joined, lengths)
    texts = normalised(batch.column("text"))
    verdict = pc.fill_null(batch.column("desirable").cast(pa.string()), "")
    answers = [_joined(batch.column(name)) for name in ("chosen", "rejected")]
    content = pc.binary_join_element_wise(batch.column("kind"), texts, dialogue, verdict, *answers, "\x1d")

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
        is_preference=as_mask(pc.equal(batch.column("kind"), "preference")),
        messages=lengths,
        num_replies=np.bincount(said.reply_rows, minlength=len(batch)),
        replies=said.replies,
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
    folded = pc.utf8_lower(normalize(pc.fill_null(texts, ""), "NFC"))
    return pc.utf8_trim(pc.replace_substring_regex(folded, r"[\s\p{Z}]+", " "), " ")


# ----------------------------------------------------------------------------------------------------------------


def _bounded(texts: pa.Array) -> pa.Array:
    """Texts cut where they are very long."""
    longest = pc.max(pc.binary_length(texts)).as_py()
    return texts if (longest or 0) <= _LONGEST else pc.utf8_slice_codeunits(texts, 0, _LONGEST)


def _listed(texts: pa.Array, lengths: np.ndarray) -> pa.Array:
    """The texts of each record as one."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, texts), "\x1e")


def _joined(lists: pa.Array) -> pa.Array:
    """The contents of each record's answer in a preference."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return _listed(normalised(lists.flatten().field("content")), lengths)


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
