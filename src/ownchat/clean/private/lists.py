"""The user's own lists: words that are never private, and words that always are.

``/expressions/`` run in RE2 (through pyarrow): time grows with the text, whatever the expression. So they are written
as RE2 reads them: no look-around, no back-references, and ``\\w``, ``\\b`` and ``\\d`` know ASCII only (``\\pL`` is any
letter). Syntax: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ownchat.clean.private.spans import CUSTOM, Span
from ownchat.errors import ConfigError

_OPEN, _CLOSE = "\x02", "\x03"  # stand around a match
# What is read as a space: the marks themselves, and half characters, which UTF-8 cannot write.
_NO_MARKS = re.compile("[\x02\x03\ud800-\udfff]")
_NOT_RE2 = (
    ("(?=", "look-ahead"), ("(?!", "negative look-ahead"), ("(?<=", "look-behind"), ("(?<!", "negative look-behind"),
    ("(?P=", "a back-reference"), ("(?>", "an atomic group"), ("(?(", "a condition"),
)  # fmt: skip


@dataclass(frozen=True)
class Expressions:
    """What a list looks for: its words as one expression (or none), and each of its ``/expressions/``."""

    words: re.Pattern[str] | None
    expressions: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.words is not None or bool(self.expressions)


def compile_list(entries: Iterable[str], name: str) -> Expressions:
    """Words become one expression, without regard to case and between word borders; ``/expressions/`` stay apart.
    Scripts without spaces have a border at each letter.

    Raises :class:`~ownchat.errors.ConfigError` for an expression that is broken or that RE2 cannot follow, with the
    number of its entry.

    >>> places(compile_list(["Acme", "/inv-[0-9]+/"], "allow"), "at ACME's, not Acmes: inv-77")
    [(3, 7), (22, 28)]
    """
    words, expressions = [], []
    for number, entry in enumerate(entries, start=1):
        where = f"{name} list, entry {number}"
        if not entry.strip("/ "):
            raise ConfigError(f"entry {number} is empty", where=f"{name} list", fix="take it out")
        if len(entry) > 2 and entry[0] == entry[-1] == "/":
            _check(entry, where)
            expressions.append(entry[1:-1])
        else:
            words.append(_bordered(entry.split()))
    either = "|".join(sorted(words, key=len, reverse=True))
    return Expressions(re.compile(either, re.IGNORECASE) if words else None, tuple(expressions))


# Scripts without spaces between words, or before what follows a name: Thai to Burmese, Khmer, kana, Han, Hangul.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u318f\u31a0-\u31ff\u3400-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")


def _bordered(words: list[str]) -> str:
    """Words between word borders; letters of a script without spaces have a border on each side."""
    before = "" if _IS_UNSPACED.match(words[0][0]) else rf"(?:(?<!\w)|(?<=[{_UNSPACED}]))"
    after = "" if _IS_UNSPACED.match(words[-1][-1]) else rf"(?:(?!\w)|(?=[{_UNSPACED}]))"
    return before + r"\s+".join(map(re.escape, words)) + after


def _check(entry: str, where: str) -> None:
    import pyarrow as pa

    fix = "mend it, or write the word without slashes"
    for mark, called in _NOT_RE2:
        if mark in entry.replace("\\\\", "").replace("\\(", ""):
            message = f"the expression {entry} has {called} ({mark}...), which the engine (RE2) does not have"
            raise ConfigError(message, where=where, fix="write it without, or write the word without slashes")
    if not entry.isascii() and "\\b" in entry:
        message = rf"the expression {entry} has \b and letters that are not ASCII, which the engine (RE2) cannot tell"
        raise ConfigError(message, where=where, fix="write the word without slashes: it is found between word borders")
    try:
        _spans(entry[1:-1], "a")
    except (pa.ArrowInvalid, UnicodeError) as error:
        reason = str(error).removeprefix("Invalid regular expression: ").removesuffix(f": (({entry[1:-1]}))")
        raise ConfigError(f"the expression {entry} is broken: {reason}", where=where, fix=fix) from error


def _spans(expression: str, text: str) -> list[tuple[int, int]]:
    """Where an expression stands in a text: RE2 puts marks around each match, and the marks are counted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    row = pa.array([_NO_MARKS.sub(" ", text)], pa.large_string())
    marked: Any = pc.replace_substring_regex(row, pattern=f"({expression})", replacement=rf"{_OPEN}\1{_CLOSE}")
    found, removed, position = [], 0, 0
    value: str = marked[0].as_py()
    while (start := value.find(_OPEN, position)) >= 0:
        position = value.find(_CLOSE, start)
        found.append((start - removed, position - removed - 1))
        removed += 2
    return found


def places(expressions: Expressions, text: str) -> list[tuple[int, int]]:
    """Where any of the expressions stands: ranges in order, those that overlap as one."""
    found = [match.span() for match in expressions.words.finditer(text)] if expressions.words is not None else []
    for expression in expressions.expressions:
        found += _spans(expression, text)
    return united(found)


def united(found: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, without the empty ones, those that overlap as one."""
    ranges: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if ranges and start < ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        elif end > start:
            ranges.append((start, end))
    return ranges


def outside(spans: list[Span], ranges: list[tuple[int, int]]) -> list[Span]:
    """The spans that lie in none of the ranges; what the deny list found stays."""
    starts = [start for start, _ in ranges]

    def is_inside(span: Span) -> bool:
        index = bisect_right(starts, span.start) - 1
        return index >= 0 and span.end <= ranges[index][1]

    return [span for span in spans if span.type == CUSTOM or not is_inside(span)]
