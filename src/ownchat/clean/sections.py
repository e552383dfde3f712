"""Cut a few long documents so that all three splits get some of each, in stretches that hang together.

A document gives one stretch to each split: neighbouring paragraphs speak of the same thing, so the fewer borders there
are between the splits, the less of the examination is seen in training.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from itertools import accumulate

from ownchat.clean.split import TEST, TRAIN, VALID
from ownchat.data.records import Record, record

FEW_DOCUMENTS = 30  # with as many, whole documents can be dealt out
LONG_DOCUMENT = 10  # paragraphs: shorter ones stay whole while there are enough of them
SECTION_CHARS = 8_000  # about 2,000 tokens: what a model sees at once

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_HEADING = re.compile(r"(?<=\n)(?=#{1,6} )")
_LINE = re.compile(r"\n\s*")
_SENTENCE = re.compile(r"[.!?]+\s+|[。！？]\s*|\n\s*")


def paragraphs(text: str) -> list[str]:
    """The text cut after blank lines and before headings, or after lines where that gives hardly any.

    The pieces add up to the text.

    >>> paragraphs("One.\\n\\nTwo.\\n# Three\\nfour\\n")
    ['One.\\n\\n', 'Two.\\n', '# Three\\nfour\\n']
    """
    found = _cut(text, _BLANK_LINE, _HEADING)
    if len(found) >= LONG_DOCUMENT:
        return found
    lines = _cut(text, _LINE)
    return lines if len(lines) >= LONG_DOCUMENT else found


def sentences(text: str) -> list[str]:
    """The text cut after sentences and lines; the pieces add up to it."""
    return _cut(text, _SENTENCE)


def stretches(pieces: list[str], id: str, *, valid_share: float, test_share: float, seed: int) -> list[int]:
    """The split of each of at least three pieces: one stretch for each split, sized by characters.

    Which split comes first depends on ``seed`` and the document's id, so that not all endings are examined.

    >>> stretches(["a"] * 10, "id", valid_share=0.1, test_share=0.1, seed=0)
    [2, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    """
    order = [(TRAIN, 1 - valid_share - test_share), (VALID, valid_share), (TEST, test_share)]
    turn = blake2b(f"{seed}\0{id}".encode()).digest()[0] % 3
    order = order[turn:] + order[:turn]
    ends = list(accumulate(map(len, pieces)))
    first = _nearest(ends, order[0][1] * ends[-1], 1, len(pieces) - 2)
    second = _nearest(ends, (order[0][1] + order[1][1]) * ends[-1], first + 1, len(pieces) - 1)
    splits = [split for split, _ in order]
    return [splits[0]] * first + [splits[1]] * (second - first) + [splits[2]] * (len(pieces) - second)


def sections(row: Record, pieces: list[str], splits: list[int]) -> list[tuple[int, Record]]:
    """The pieces of a document as new records of up to about 8,000 characters, each with its split."""
    held: list[tuple[int, str]] = []
    for piece, split in zip(pieces, splits, strict=True):
        if held and held[-1][0] == split and len(held[-1][1]) + len(piece) <= SECTION_CHARS:
            held[-1] = (split, held[-1][1] + piece)
        else:
            held.append((split, piece))
    source, made = row["source"], []
    line, offset = source["line"], source["offset"] or 0
    for split, text in held:
        kept = {name: row[name] for name in ("language", "rating", "synthetic", "tags")}
        place = {"file": source["file"], "format": source["format"], "line": line, "offset": offset}
        made.append((split, record("document", **place, text=text, **kept)))
        line, offset = line + text.count("\n"), offset + len(text)
    return made


def _cut(text: str, *borders: re.Pattern[str]) -> list[str]:
    places = sorted({match.end() for border in borders for match in border.finditer(text)} - {0, len(text)})
    pieces = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
    joined: list[str] = []
    for piece in pieces:
        if joined and not (piece.strip() and joined[-1].strip()):
            joined[-1] += piece  # white space alone is no piece
        else:
            joined.append(piece)
    return joined


def _nearest(ends: list[int], place: float, low: int, high: int) -> int:
    """How many pieces end nearest to ``place`` characters, between ``low`` and ``high``."""
    return min(range(low, high + 1), key=lambda count: abs(ends[count - 1] - place))
