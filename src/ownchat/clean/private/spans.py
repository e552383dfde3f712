"""What is found: a span of a text with its type, and how overlapping finds become disjoint ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from typing import NamedTuple, get_args

from ownchat.config import NOT_PRIVATE_BY_DEFAULT, PrivateType

TYPES: tuple[str, ...] = get_args(PrivateType)
DEFAULT = tuple(type for type in TYPES if type not in NOT_PRIVATE_BY_DEFAULT)
CUSTOM = "custom"  # the type of what the user's own deny list finds


class Span(NamedTuple):
    """Where private data stands: code points ``start`` to ``end`` of the text, and why it is thought so."""

    start: int
    end: int
    type: str
    score: float  # 0 to 1: the tagger's probability, or how rarely the pattern errs
    detector: str  # "tagger", or the name of a pattern, key format or list


@dataclass(frozen=True)
class Redaction:
    """A text without its private data, and where that stood in the text before."""

    text: str
    spans: list[Span]


def disjoint(text: str, layers: Iterable[Iterable[Span]]) -> list[Span]:
    """Spans in order without overlap: earlier layers win, inside a layer the higher score, then the longer.

    What sticks out of a covered place stays when it holds a letter or digit; spans are trimmed of white space.

    >>> disjoint("call Anna 12", [[Span(10, 12, "phone", 1.0, "x")], [Span(5, 12, "person", 0.9, "tagger")]])
    [Span(start=5, end=9, type='person', score=0.9, detector='tagger'), Span(start=10, end=12, type='phone', score=1.0, detector='x')]
    """  # noqa: E501
    spans = [
        span
        for layer in layers
        for span in sorted(layer, key=lambda span: (-span.score, span.start - span.end, span.start))
        if span.start < span.end
    ]  # by rank: at each place the first that covers it wins
    by_start = sorted(range(len(spans)), key=lambda rank: spans[rank].start)
    borders = sorted({edge for span in spans for edge in (span.start, span.end)})
    waiting: list[int] = []  # ranks of spans that have begun, the best first
    owners: list[list[int]] = []  # start, end, rank of each stretch
    begun = 0
    for start, end in pairwise(borders):
        while begun < len(by_start) and spans[by_start[begun]].start <= start:
            heappush(waiting, by_start[begun])
            begun += 1
        while waiting and spans[waiting[0]].end <= start:
            heappop(waiting)
        if waiting:
            if owners and owners[-1][1] == start and owners[-1][2] == waiting[0]:
                owners[-1][1] = end
            else:
                owners.append([start, end, waiting[0]])
    taken = []
    for start, end, rank in owners:
        piece = text[start:end]
        start += len(piece) - len(piece.lstrip())
        end -= len(piece) - len(piece.rstrip())
        if any(map(str.isalnum, piece)):
            taken.append(spans[rank]._replace(start=start, end=end))
    return taken


# What may stand between two halves of one thing: "Mr J" and "Smith", a street and its town.
_BETWEEN = {
    type: re.compile(expression)
    for type, expression in {
        "person": r"[ .'’\-]{1,2}",
        "address": r"[,.\s]{0,3}",
        "phone": r"[ \-]?",
        "organisation": r" (?:& |of |and )?",
        "reference": r"[\-/]?",
        "email": r"[.@]?",
    }.items()
}


_SHORTENED = re.compile(r"(?<!\w)(?:\w{1,2}|mrs|prof|sgt|rev|hon|smt)$", re.IGNORECASE)


def _ends_sentence(text: str, before: Span, between: str) -> bool:
    """A full stop between two names, and not after an initial or a short title."""
    return (
        before.type == "person"
        and "." in between
        and not _SHORTENED.search(text, max(before.start, before.end - 6), before.end)
    )


def joined(text: str, spans: list[Span]) -> list[Span]:
    """Disjoint spans of one type with next to nothing between them become one.

    >>> joined("12 Oak St, Paris", [Span(0, 9, "address", 0.9, "street"), Span(11, 16, "address", 0.7, "tagger")])
    [Span(start=0, end=16, type='address', score=0.9, detector='street')]
    """
    result: list[Span] = []
    for span in spans:
        before = result[-1] if result else None
        if before is not None and before.type == span.type and span.type in _BETWEEN and span.start - before.end < 6:
            between = text[before.end : span.start]
            if _BETWEEN[span.type].fullmatch(between) and not _ends_sentence(text, before, between):
                best = max(before, span, key=lambda one: one.score)
                result[-1] = Span(before.start, span.end, span.type, best.score, best.detector)
                continue
        result.append(span)
    return result
