"""What near duplicates, leaks and contamination are measured on: text as rows of code points, its shingles and n-grams.

Text is folded first: compatibility forms (NFKC), lower case, everything but letters, digits and marks one space. All
of it is numpy on the code points of many texts at once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.batches import normalize
from ownchat.clean.words import mix

SHINGLE = 5  # characters: long enough that unrelated texts of a language share few, short enough to survive a typo
_SPACE = 32
_BASE = np.uint64(0x9E3779B97F4A7C15)
_ALONE = ((0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0x20000, 0x3FFFF))
_UNSPACED = re.compile("[" + "".join(f"{chr(low)}-{chr(top)}" for low, top in _ALONE) + "]")
_FACTORS = mix(np.arange(64, dtype=np.uint64) + _BASE) | np.uint64(1)
_PIECE = 1 << 16  # characters worked on at a time: what a core's cache holds, about 60 bytes of memory each


@dataclass(frozen=True)
class Folded:
    """Folded texts one after the other."""

    points: np.ndarray  # (characters,) uint32 code points
    starts: np.ndarray  # (num_texts + 1,) where each text begins

    def __len__(self) -> int:
        return len(self.starts) - 1

    def text(self, index: int) -> np.ndarray:
        """The code points of one text."""
        return self.points[self.starts[index] : self.starts[index + 1]]

    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)


def fold(texts: pa.Array) -> Folded:
    """Fold texts for comparison; null becomes empty.

    >>> folded = fold(pa.array(["Where is\\u00a0my -- ORDER?!", None]))
    >>> "".join(map(chr, folded.text(0))), len(folded.text(1))
    ('where is my order', 0)
    """
    texts = normalize(pc.fill_null(texts, ""), "NFKC")
    lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    points = np.frombuffer("".join(texts.to_pylist()).encode("utf-32-le"), np.uint32)
    points = _folding()[points]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    space = points == _SPACE
    first = np.zeros(len(points) + 1, bool)
    first[starts] = True
    # A space goes when another one, or the beginning, stands before it; then one may be left at each end.
    keep = ~(space & first[:-1])
    keep[1:] &= ~(space[1:] & space[:-1])
    points, starts = points[keep], np.concatenate([[0], np.cumsum(keep)])[starts]
    ends = np.flatnonzero(np.diff(starts))
    ends = ends[points[starts[ends + 1] - 1] == _SPACE]
    removed = np.zeros(len(starts), np.int64)
    removed[ends + 1] = 1
    return Folded(np.delete(points, starts[ends + 1] - 1), starts - np.cumsum(removed))


def shingles(folded: Folded, size: int = SHINGLE) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all runs of ``size`` characters in each text (a space at both ends), and where each text's begin.

    A text too short for one run has a single shingle, an empty one has none.

    >>> hashes, starts = shingles(fold(pa.array(["order 7", "border 7", ""])))
    >>> starts.tolist(), len(np.intersect1d(hashes[:5], hashes[5:]))
    ([0, 5, 11, 11], 4)
    """
    lengths = folded.lengths()
    padded = np.where(lengths > 0, np.maximum(lengths + 2, size), 0)
    starts = np.concatenate([[0], np.cumsum(padded)])
    points = np.full(int(starts[-1]), _SPACE, np.uint64)
    points[np.arange(len(folded.points)) + np.repeat(starts[:-1] + 1 - folded.starts[:-1], lengths)] = folded.points
    counts = np.where(lengths > 0, padded - size + 1, 0)
    hashes = np.zeros(max(0, len(points) - size + 1), np.uint64)
    for place in range(size):
        hashes = hashes * _BASE + points[place : place + len(hashes)]
    found = np.concatenate([[0], np.cumsum(counts)])
    valid = np.repeat(starts[:-1] - found[:-1], counts) + np.arange(int(found[-1]))
    return mix(hashes[valid]), found


def word_hashes(folded: Folded) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each word and where each text's begin; a character of a script without spaces is a word.

    >>> hashes, starts = word_hashes(fold(pa.array(["to be or not to be", "\\u6771\\u4eac to"])))
    >>> starts.tolist(), int(hashes[0] == hashes[4]), int(hashes[0] == hashes[8])
    ([0, 6, 9], 1, 1)
    """
    hashes, begins = _words(folded)
    return hashes, np.searchsorted(begins, folded.starts)


def without_runs(folded: Folded, runs: np.ndarray, size: int) -> Folded:
    """The texts without the words that stand in one of ``runs`` (sorted keys of ``size`` words, as :func:`ngrams`'s).

    >>> text = fold(pa.array(["Please answer my question: where is it?"]))
    >>> left = without_runs(text, np.sort(ngrams(*word_hashes(fold(pa.array(["please answer my"]))), 3)[0]), 3)
    >>> "".join(map(chr, left.text(0)))
    'question where is it'
    """
    hashes, begins = _words(folded)
    starts = np.searchsorted(begins, folded.starts)
    keys, found = ngrams(hashes, starts, size)
    place = np.minimum(np.searchsorted(runs, keys), len(runs) - 1)
    hits = np.flatnonzero(runs[place] == keys)
    row = np.searchsorted(found, hits, side="right") - 1
    change = np.zeros(len(hashes) + 1, np.int64)
    first = starts[row] + hits - found[row]
    np.add.at(change, first, 1)
    np.add.at(change, first + size, -1)
    covered = np.cumsum(change[:-1]) > 0
    gone = np.repeat(covered, np.diff(np.append(begins, len(folded.points)))) if len(begins) else np.zeros(0, bool)
    return Folded(folded.points[~gone], np.concatenate([[0], np.cumsum(~gone)])[folded.starts])


def _word_borders(folded: Folded) -> np.ndarray:
    """Where each word begins."""
    points = folded.points
    space, alone = points == _SPACE, _alone(points)
    border = np.ones(len(points), bool)
    border[1:] = space[:-1] | alone[1:] | alone[:-1]
    border[folded.starts[:-1][folded.lengths() > 0]] = True
    return np.flatnonzero(border & ~space)


def _words(folded: Folded) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each word, and where it begins."""
    points = folded.points
    if not len(points):
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    begins = _word_borders(folded)
    if not len(begins):
        return np.empty(0, np.uint64), begins
    # A word's hash: the sum over its characters of the character times the factor of its place in the word.
    sizes = np.diff(begins, prepend=0, append=len(points))
    place = np.arange(len(points), dtype=np.uint32) - np.repeat(np.insert(begins, 0, 0).astype(np.uint32), sizes)
    values = _FACTORS[place % np.uint32(len(_FACTORS))]
    values *= points
    values[points == _SPACE] = 0
    return mix(np.add.reduceat(values, begins)), begins


def text_keys(folded: Folded) -> np.ndarray:
    """A 64-bit hash of each text; 0 for an empty one."""
    place = np.arange(len(folded.points)) - np.repeat(folded.starts[:-1], folded.lengths())
    values = mix(folded.points.astype(np.uint64) + (place.astype(np.uint64) << np.uint64(32)))
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    keys = mix(total[folded.starts[1:]] - total[folded.starts[:-1]])
    return np.where(folded.lengths() > 0, np.maximum(keys, np.uint64(1)), np.uint64(0))


def count_words(folded: Folded) -> np.ndarray:
    """Words of each text, by :func:`word_hashes`'s rule."""
    begins = _word_borders(folded)
    return np.diff(np.searchsorted(begins, folded.starts))


def gather(folded: Folded, order: np.ndarray, owners: np.ndarray, count: int) -> Folded:
    """``count`` new texts: text ``order[i]`` becomes a part of text ``owners[i]`` (ascending); a space joins parts."""
    owners, order = owners[folded.lengths()[order] > 0], order[folded.lengths()[order] > 0]
    lengths = folded.lengths()[order]
    follows = np.zeros(len(order), np.int64)
    follows[1:] = owners[1:] == owners[:-1]  # a space before it
    ends = np.cumsum(lengths + follows)
    points = np.full(int(ends[-1]) if len(ends) else 0, _SPACE, np.uint32)
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    sources = np.repeat(folded.starts[order], lengths) + within
    points[np.repeat(ends - lengths, lengths) + within] = folded.points[sources]
    sizes = np.bincount(owners, weights=lengths + follows, minlength=count).astype(np.int64)
    return Folded(points, np.concatenate([[0], np.cumsum(sizes)]))


def interleave(asked: Folded, answered: Folded) -> Folded:
    """Two texts of each record one after the other: ``2 n`` texts."""
    count = len(asked)
    joined = Folded(
        np.concatenate([asked.points, answered.points]),
        np.concatenate([asked.starts, answered.starts[1:] + asked.starts[-1]]),
    )
    order = np.stack([np.arange(count), np.arange(count) + count], axis=1).ravel()
    return gather(joined, order, np.arange(2 * count), 2 * count)


def whole(asked: Folded, answered: Folded) -> Folded:
    """Two texts of each record as one."""
    both = interleave(asked, answered)
    return gather(both, np.arange(len(both)), np.arange(len(both)) // 2, len(asked))


def ngrams(hashes: np.ndarray, starts: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all runs of ``size`` words in each text, and where each text's begin."""
    counts = np.maximum(np.diff(starts) - size + 1, 0)
    found = np.concatenate([[0], np.cumsum(counts)])
    begins = np.repeat(starts[:-1] - found[:-1], counts) + np.arange(int(found[-1]))
    result = np.zeros(len(begins), np.uint64)
    for place in range(size):
        result = result * _BASE + hashes[begins + place]
    return mix(result), found


def character_runs(text: str, size: int) -> set[str]:
    """The runs that :func:`shingles` hashes, of one folded text.

    >>> sorted(character_runs("to do", 3))
    [' do', ' to', 'do ', 'o d', 'to ']
    """
    padded = f" {text} ".ljust(size)
    return {padded[place : place + size] for place in range(len(padded) - size + 1)} if text else set()


def split_words(text: str) -> list[str]:
    """The words of one folded text, by :func:`word_hashes`'s rule."""
    return text.split() if text.isascii() else _UNSPACED.sub(r" \g<0> ", text).split()


def jaccard(first: Set[object], second: Set[object]) -> float:
    """Shared share of two sets; 1 for two empty ones."""
    shared = len(first & second)
    total = len(first) + len(second) - shared
    return shared / total if total else 1.0


def pieces(folded: Folded) -> list[tuple[int, int]]:
    """Ranges of texts of some ten thousand characters together: what the functions above take at a time."""
    cuts, start = [], 0
    while start < len(folded):
        end = int(np.searchsorted(folded.starts, folded.starts[start] + _PIECE, side="right")) - 1
        cuts.append((start, end := min(max(end, start + 1), len(folded))))
        start = end
    return cuts


def part(folded: Folded, start: int, end: int) -> Folded:
    """The texts from ``start`` to ``end``."""
    starts = folded.starts[start : end + 1]
    return Folded(folded.points[starts[0] : starts[-1]], starts - starts[0])


# ---------------------------------------------------------------------------------------------------------------------


def _alone(points: np.ndarray) -> np.ndarray:
    """Characters of scripts that are written without spaces: Chinese, Japanese, Thai, Lao, Khmer, Burmese."""
    alone = np.zeros(len(points), bool)
    high = np.flatnonzero(points >= 0xE00)
    for low, top in _ALONE:
        alone[high] |= (points[high] >= low) & (points[high] <= top)
    return alone


@cache
def _folding() -> np.ndarray:
    """For every code point its folded one."""
    table = np.arange(0x110000, dtype=np.uint32)
    for point in range(0x20000):  # beyond: ideographs and private use, which fold to themselves
        character = chr(point)
        if unicodedata.category(character)[0] not in "LNM":
            table[point] = _SPACE
        elif len(lower := character.lower()) == 1:
            table[point] = ord(lower)
    return table
