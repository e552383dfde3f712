"""Signatures, disclaimers, menus and footers: lines that stand in a large share of the records of one source.

They are learned from the data in a first pass over all batches (:class:`Learned`), in memory that does not grow, and
cut in the second. The counts are sums, so batches may come in any order and from any number of processes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.artifacts import replacing
from ownchat.clean.batches import (
    Cleaned,
    flat_messages,
    is_spoken,
    matches,
    replace_messages,
    rows_of,
    sources,
    with_column,
    with_messages,
    with_texts,
)
from ownchat.data.ledger import Entry

EDGE_LINES = 12  # at each end of a text: boilerplate stands at the top or at the bottom
LEAST_RECORDS = 10  # that share a line before it can be boilerplate
LEAST_WORDS = 8  # of a block: "Best regards, Anna" is how somebody writes, a block of eight words is a form
LEAST_LIMIT = 200  # characters: replies of one length that is shorter are stock phrases
LEAST_FULL = 3  # replies of exactly the longest length before it counts as an export's limit
_WIDTH, _DEPTH = 1 << 20, 4  # 16 MB


class LineCounts:
    """In how many records of a source each line stands: a count-min sketch (Cormode and Muthukrishnan 2005).

    Estimates are never too low, and too high by more than e / 2**20 of all lines counted with probability e**-4.

    >>> counts = LineCounts()
    >>> counts.add(np.array([7, 7, 9], np.uint64))
    >>> counts.estimate(np.array([7, 8, 9], np.uint64)).tolist()
    [2, 0, 1]
    """

    def __init__(self, cells: np.ndarray | None = None, total: int = 0) -> None:
        self.cells = np.zeros((_DEPTH, _WIDTH), np.uint32) if cells is None else cells
        self.total = total

    def add(self, keys: np.ndarray) -> None:
        """Count each of ``keys`` (uint64) once more."""
        for row, cells in zip(self.cells, self._places(keys), strict=True):
            row += np.bincount(cells, minlength=_WIDTH).astype(np.uint32)
        self.total += len(keys)

    def estimate(self, keys: np.ndarray) -> np.ndarray:
        """How often each key was counted, at least as much as it truly was."""
        found = [row[cells] for row, cells in zip(self.cells, self._places(keys), strict=True)]
        return np.min(found, axis=0).astype(np.int64)

    def merge(self, other: LineCounts) -> None:
        """Add the counts of another part of the data."""
        self.cells += other.cells
        self.total += other.total

    @staticmethod
    def _places(keys: np.ndarray) -> list[np.ndarray]:
        """A cell in each row: two halves of a 64-bit hash combined (Kirsch and Mitzenmacher 2006)."""
        low, high = keys & np.uint64(_WIDTH - 1), (keys >> np.uint64(32)) | np.uint64(1)
        return [((low + np.uint64(row) * high) & np.uint64(_WIDTH - 1)).astype(np.int64) for row in range(_DEPTH)]


@dataclass
class Learned:
    """What the first pass over the data learned, by source (:func:`~ownchat.clean.batches.sources`)."""

    lines: LineCounts = field(default_factory=LineCounts)
    records: dict[str, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)  # texts of more than one line
    longest: dict[str, tuple[int, int]] = field(default_factory=dict)  # longest reply in characters, how many have it

    def learn(self, batch: pa.RecordBatch) -> None:
        """Count the lines and lengths of a batch."""
        names = sources(batch)
        _add(self.records, Counter(names))
        for texts, owners in _columns(batch):
            edges = _edges(texts, owners, names)
            if len(edges.keys):
                once = edges.keys ^ (edges.records.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
                self.lines.add(edges.keys[np.unique(once, return_index=True)[1]])
            _add(self.texts, Counter(names[row] for row in np.unique(edges.records).tolist()))
        self._learn_lengths(batch, names)

    def _learn_lengths(self, batch: pa.RecordBatch, names: list[str]) -> None:
        messages = flat_messages(batch)
        length = pc.fill_null(pc.utf8_length(messages.field("content")), 0).to_numpy(zero_copy_only=False)
        long = np.flatnonzero(length >= LEAST_LIMIT)
        for index, row in zip(long.tolist(), rows_of(batch)[long].tolist(), strict=True):
            name, found = names[row], int(length[index])
            most, count = self.longest.get(name, (0, 0))
            if found >= most:
                self.longest[name] = (found, count + 1 if found == most else 1)

    def merge(self, other: Learned) -> None:
        """Add what was learned from another part of the data."""
        self.lines.merge(other.lines)
        _add(self.records, other.records)
        _add(self.texts, other.texts)
        for name, (length, count) in other.longest.items():
            most, before = self.longest.get(name, (0, 0))
            if length >= most:
                self.longest[name] = (length, count + before if length == most else count)

    def save(self, path: Path) -> None:
        """Into a file that :meth:`load` reads; it is there when it is whole."""
        rest = json.dumps({"records": self.records, "texts": self.texts, "longest": self.longest})
        with replacing(path) as aside:
            np.savez(aside, cells=self.lines.cells, total=self.lines.total, rest=np.array(rest))

    @staticmethod
    def load(path: Path) -> Learned:
        """What :meth:`save` wrote."""
        with np.load(path) as stored:
            lines, rest = LineCounts(stored["cells"], int(stored["total"])), json.loads(str(stored["rest"]))
        longest = {name: (length, count) for name, (length, count) in rest["longest"].items()}
        return Learned(lines, rest["records"], rest["texts"], longest)

    def limits(self) -> dict[str, int]:
        """The length in characters at which each source's export seems to cut messages, where it does."""
        return {name: length for name, (length, count) in self.longest.items() if count >= LEAST_FULL}


def cut_boilerplate(batch: pa.RecordBatch, learned: Learned | None = None, share: float = 0.1) -> Cleaned:
    """Cut blocks of learned lines from the top and the bottom of texts; something always remains.

    A line is learned when it stands in ``share`` of the source's texts of several lines, and in ten at least. Case,
    digits and white space make no difference: "Page 3" is "Page 4". Single-line messages stay as they are: a stock
    phrase is an answer.
    """
    if learned is None or not learned.texts:
        return batch, []
    names = sources(batch)
    cut_lines: dict[int, int] = {}
    for column, (texts, owners) in zip(("messages", "text"), _columns(batch), strict=True):
        changed: dict[int, str] = {}
        edges = _edges(texts, owners, names)
        if not len(edges.keys):
            continue
        # A sketch that holds much is off by more: what it may be off by does not count as evidence.
        least = np.array([max(LEAST_RECORDS, share * learned.texts.get(name, 0)) for name in names])
        slack = np.e * learned.lines.total / _WIDTH
        counts = learned.lines.estimate(edges.keys)
        frequent = counts >= least[edges.records] + slack
        for index in np.unique(edges.texts[frequent]).tolist():
            first, last = np.searchsorted(edges.texts, [index, index + 1])
            lines = texts[index].as_py().split("\n")
            known = dict(zip(edges.places[first:last].tolist(), counts[first:last].tolist(), strict=True))
            kept = _without_blocks(lines, known, float(least[owners[index]] + slack))
            if kept is not None:
                changed[index] = "\n".join(kept).strip("\n")
                row = int(owners[index])
                cut_lines[row] = cut_lines.get(row, 0) + len(lines) - len(kept)
        if changed and column == "messages":
            messages = flat_messages(batch)
            contents = with_texts(messages.field("content"), changed)
            batch = with_messages(batch, replace_messages(messages, content=contents))
        elif changed:
            batch = with_column(batch, "text", with_texts(batch.column("text"), changed))
    ids = batch.column("id")
    return batch, [
        Entry("row", ids[row].as_py(), "changed", "boilerplate", detail=f"{count} lines")
        for row, count in sorted(cut_lines.items())
    ]


# ---------------------------------------------------------------------------------------------------------------------


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count


@dataclass(frozen=True)
class _Edges:
    """The non-blank lines at both ends of texts of several lines: one entry a line, in order."""

    texts: np.ndarray  # index of the text in its column
    records: np.ndarray  # row of the batch
    places: np.ndarray  # number of the line in its text
    keys: np.ndarray  # uint64 hash of source and line


def _columns(batch: pa.RecordBatch) -> list[tuple[pa.Array, np.ndarray]]:
    """The texts that may hold boilerplate, with the row of each: messages, then documents."""
    messages = flat_messages(batch)
    contents = pc.if_else(pa.array(is_spoken(messages)), messages.field("content"), pa.scalar(None, pa.string()))
    return [(contents, rows_of(batch)), (batch.column("text"), np.arange(len(batch)))]


def _edges(texts: pa.Array, owners: np.ndarray, names: list[str]) -> _Edges:
    several = np.flatnonzero(matches(texts, r"\S\s*\n\s*\S"))
    if not len(several):
        nothing = np.empty(0, np.int64)
        return _Edges(nothing, nothing, nothing, np.empty(0, np.uint64))
    lists = pc.split_pattern(texts.take(pa.array(several)), "\n")
    counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    places = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    from_end = np.repeat(counts, counts) - 1 - places
    near = np.flatnonzero((places < EDGE_LINES) | (from_end < EDGE_LINES))
    lines = lists.flatten().take(pa.array(near))
    folded = pc.utf8_lower(pc.replace_substring_regex(lines, r"[\p{Nd}]+", "0"))
    folded = pc.utf8_trim(pc.replace_substring_regex(folded, r"[\s\p{Z}*_>|#=-]+", " "), " ")
    filled = np.flatnonzero(pc.greater(pc.utf8_length(folded), 0).to_numpy(zero_copy_only=False))
    texts_of = np.repeat(np.arange(len(several)), counts)[near][filled]
    records = owners[several][texts_of]
    keys = _line_keys(folded.take(pa.array(filled)), [names[row] for row in records.tolist()])
    return _Edges(several[texts_of], records, places[near][filled], keys)


def _line_keys(lines: pa.Array, names: list[str]) -> np.ndarray:
    """A 64-bit hash of source and line; equal lines, of which there are many, are hashed once."""
    joined = pc.binary_join_element_wise(pa.array(names, pa.string()), lines, "\x1f").dictionary_encode()
    hashes = [blake2b(line.encode(), digest_size=8).digest() for line in joined.dictionary.to_pylist()]
    return np.frombuffer(b"".join(hashes), "<u8")[joined.indices.to_numpy(zero_copy_only=False)]


def _without_blocks(lines: list[str], counts: dict[int, int], least: float) -> list[str] | None:
    """The lines without their learned head and foot; none when there is nothing to cut, or nothing would remain.

    Where all lines are frequent, the text is a stock answer: only what is clearly more frequent than it is its frame.
    """
    filled = [place for place, line in enumerate(lines) if line.strip()]
    if all(counts.get(place, 0) >= least for place in filled):
        least = 1.5 * min(counts[place] for place in filled)
    start, end = 0, len(lines)
    while start < end and (not lines[start].strip() or counts.get(start, 0) >= least):
        start += 1
    while end > start and (not lines[end - 1].strip() or counts.get(end - 1, 0) >= least):
        end -= 1
    if start == end:
        return None
    if sum(len(line.split()) for line in lines[:start]) < LEAST_WORDS:
        start = 0
    if sum(len(line.split()) for line in lines[end:]) < LEAST_WORDS:
        end = len(lines)
    return lines[start:end] if end - start < len(lines) else None
