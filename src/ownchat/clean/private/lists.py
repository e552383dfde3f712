"""The user's own lists: words that are never private, and words that always are."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

from ownchat.clean.private.spans import CUSTOM, Span
from ownchat.errors import ConfigError

Expressions = tuple[re.Pattern[str], ...]


def compile_list(entries: Iterable[str], name: str) -> Expressions:
    """Words become one expression, without regard to case and between word borders; ``/expressions/`` stay apart.

    Raises :class:`~ownchat.errors.ConfigError` for an expression that is broken, with where it breaks.

    >>> places(compile_list(["Acme"], "allow"), "at ACME's, not Acmes")
    [(3, 7)]
    """
    words, expressions = [], []
    for number, entry in enumerate(entries, start=1):
        where = f"{name} list, entry {number}"
        if not entry.strip("/ "):
            raise ConfigError(f"entry {number} is empty", where=f"{name} list", fix="take it out")
        if len(entry) > 2 and entry[0] == entry[-1] == "/":
            try:
                expressions.append(re.compile(entry[1:-1]))
            except (re.error, OverflowError, RecursionError) as error:
                fix = "mend it, or write the word without slashes"
                raise ConfigError(f"the expression {entry} is broken: {error}", where=where, fix=fix) from error
        else:
            words.append(r"\s+".join(map(re.escape, entry.split())))
    if words:
        either = "|".join(sorted(words, key=len, reverse=True))
        expressions.append(re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE))
    return tuple(expressions)


def places(expressions: Expressions, text: str) -> list[tuple[int, int]]:
    """Where any of the expressions stands: ranges in order, those that overlap as one."""
    found = sorted(match.span() for one in expressions for match in one.finditer(text) if match.end() > match.start())
    ranges: list[tuple[int, int]] = []
    for start, end in found:
        if ranges and start < ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return ranges


def outside(spans: list[Span], ranges: list[tuple[int, int]]) -> list[Span]:
    """The spans that lie in none of the ranges; what the deny list found stays."""
    starts = [start for start, _ in ranges]

    def is_inside(span: Span) -> bool:
        index = bisect_right(starts, span.start) - 1
        return index >= 0 and span.end <= ranges[index][1]

    return [span for span in spans if span.type == CUSTOM or not is_inside(span)]
