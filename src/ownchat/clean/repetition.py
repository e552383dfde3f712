"""How much of a text repeats itself: table A1 of Rae et al. 2021 (Gopher).

numpy measures all texts at once. The shares of duplicate 5- to 10-grams, which are counted greedily from left to right
without overlap, come from Python for the few texts that could exceed them: what any repeated 5-gram covers is at least
what the greedy count of any of these sizes finds.
"""

from __future__ import annotations

import re

import numpy as np

from ownchat.clean.words import Words, ngrams

DUPLICATE_LINES, DUPLICATE_PARAGRAPHS = 0.30, 0.30
DUPLICATE_LINE_CHARS, DUPLICATE_PARAGRAPH_CHARS = 0.20, 0.20
TOP_NGRAMS = ((2, 0.20), (3, 0.18), (4, 0.16))
DUPLICATE_NGRAMS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))

_PARAGRAPHS, _LINES = re.compile(r"\n{2,}"), re.compile(r"\n+")


def gopher_repetition(texts: list[str], words: Words) -> list[str | None]:
    """The first limit that each text exceeds, or none; ``words`` are those of ``texts``.

    >>> from ownchat.clean.words import split_words
    >>> texts = ["The same line again.\\n" * 5, "Every thing is said once. " + " ".join(map(str, range(50)))]
    >>> gopher_repetition(texts, split_words(texts))
    ['duplicate_lines', None]
    """
    found: list[str | None] = [_repeated_lines(text) for text in texts]
    size = np.array([max(1, len(text)) for text in texts])
    open_ = np.flatnonzero([rule is None for rule in found])
    times = np.full(len(texts), np.iinfo(np.int64).max // 2**20)
    for count, most in TOP_NGRAMS:
        # No n-gram stands more often in a text than the most frequent shorter one: most texts are settled by that.
        possible = open_[_longest_ngram(words, count)[open_] * times[open_] / size[open_] > most]
        chars, times[possible] = _top_ngram(words.of(possible), count)
        for row in possible[chars / size[possible] > most].tolist():
            found[row] = f"top_{count}_gram"
        open_ = np.flatnonzero([rule is None for rule in found])
    smallest = min(most for _, most in DUPLICATE_NGRAMS)
    suspects = open_[_covered_chars(words.of(open_), DUPLICATE_NGRAMS[0][0]) / size[open_] > smallest]
    for row in suspects.tolist():
        found[row] = _duplicate_ngrams(words.of(np.array([row])), size[row])
    return found


def _repeated_lines(text: str) -> str | None:
    if "\n" not in text:
        return None
    for pattern, whole, share, char_share, name in (
        (_PARAGRAPHS, text.strip(), DUPLICATE_PARAGRAPHS, DUPLICATE_PARAGRAPH_CHARS, "duplicate_paragraphs"),
        (_LINES, text, DUPLICATE_LINES, DUPLICATE_LINE_CHARS, "duplicate_lines"),
    ):
        pieces = pattern.split(whole)
        once = set(pieces)
        if (len(pieces) - len(once)) / len(pieces) > share:
            return name
        if (sum(map(len, pieces)) - sum(map(len, once))) / len(text) > char_share:
            return f"{name.removesuffix('s')}_chars"
    return None


def _longest_ngram(words: Words, count: int) -> np.ndarray:
    """Characters of the longest n-gram of each text, spaces included."""
    begins, _ = ngrams(words, count, hashed=False)
    ends = np.concatenate([[0], np.cumsum(words.chars)])
    longest = np.zeros(len(words.starts) - 1, np.int64)
    rows = words.rows[begins]
    borders = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]])) if len(rows) else rows
    if len(borders):
        chars = ends[begins + count] - ends[begins] + count - 1
        longest[rows[borders]] = np.maximum.reduceat(chars, borders)
    return longest


def _top_ngram(words: Words, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent n-gram of each text: its characters, spaces included, times how often it stands; how often."""
    begins, hashes = ngrams(words, count)
    result, often = np.zeros((2, len(words.starts) - 1), np.int64)
    if not len(begins):
        return result, often
    # One sort puts equal n-grams of one text side by side, texts in order.
    keys = (words.rows[begins].astype(np.uint64) << np.uint64(44)) | (hashes >> np.uint64(20))
    order = np.argsort(keys)
    ordered = keys[order]
    heads = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    times = np.diff(np.append(heads, len(ordered)))
    first = np.minimum.reduceat(order, heads)  # the place where each n-gram stands first
    rows = words.rows[begins[first]]
    borders = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
    most = np.repeat(np.maximum.reduceat(times, borders), np.diff(np.append(borders, len(rows))))
    # Of equally frequent n-grams the one that comes first counts.
    leaders = np.minimum.reduceat(np.where(times == most, first, len(begins)), borders)
    ends = np.concatenate([[0], np.cumsum(words.chars)])
    chars = ends[begins[leaders] + count] - ends[begins[leaders]] + count - 1
    result[rows[borders]], often[rows[borders]] = chars * most[borders], most[borders]
    return result, often


def _covered_chars(words: Words, count: int) -> np.ndarray:
    """Characters of each text that stand in an n-gram which stood before."""
    begins, hashes = ngrams(words, count)
    if not len(begins):
        return np.zeros(len(words.starts) - 1, np.int64)
    keys = (words.rows[begins].astype(np.uint64) << np.uint64(44)) | (hashes >> np.uint64(20))
    repeated = np.ones(len(begins), bool)
    repeated[np.unique(keys, return_index=True)[1]] = False
    edges = np.zeros(len(words.rows) + 1, np.int64)
    np.add.at(edges, begins[repeated], 1)
    np.add.at(edges, begins[repeated] + count, -1)
    return words.sum(np.where(np.cumsum(edges[:-1]) > 0, words.chars, 0))


def _duplicate_ngrams(words: Words, size: int) -> str | None:
    """The rule on duplicate n-grams that one text breaks, if any."""
    ends = np.concatenate([[0], np.cumsum(words.chars)]).tolist()
    for count, most in DUPLICATE_NGRAMS:
        if _covered_chars(words, count)[0] / size <= most:
            continue
        if _duplicate_chars(ngrams(words, count)[1].tolist(), ends, count) / size > most:
            return f"duplicate_{count}_gram"
    return None


def _duplicate_chars(hashes: list[int], ends: list[int], count: int) -> int:
    """Characters in duplicate n-grams, from left to right: after one found, the search goes on behind it.

    ``hashes``: of the n-grams at each word; ``ends``: characters before each word.
    """
    seen: set[int] = set()
    total = place = 0
    while place < len(hashes):
        if hashes[place] in seen:
            total += ends[place + count] - ends[place]
            place += count
        else:
            seen.add(hashes[place])
            place += 1
    return total
