"""The beginning of a JSON file as a value, closed where it is cut: enough to recognise what the file is."""

from __future__ import annotations

import json
import re
from typing import Any

from ownchat.data.json_stream import parse

OUTLINE_ROWS = 50  # objects of JSON lines

_MARK = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}


def outline(sample: str, *, whole: bool) -> Any:
    """The JSON value that a text begins with, closed where it is cut; None if it is not JSON.

    JSON lines give a list of their first objects.

    >>> outline('[{"a": [1, 2', whole=False), outline("no", whole=True)
    ([{'a': [1]}], None)
    """
    start = sample.lstrip("\ufeff \t\r\n")
    if not start.startswith(("{", "[")):
        return None
    first, _, rest = start.partition("\n")
    if start.startswith("{") and rest.strip() and (value := _parsed(first)) is not None:
        lines = [line for line in start.split("\n", OUTLINE_ROWS + 1) if line.strip()]
        kept = [_parsed(line) for line in (lines if whole and len(lines) <= OUTLINE_ROWS else lines[:-1])]
        return [value for value in kept[:OUTLINE_ROWS] if value is not None] or [value]
    if whole and (value := _parsed(start)) is not None:
        return value
    return _parsed(_closed(start)) or _before_damage(start)


# ----------------------------------------------------------------------------------------------------------------


def _parsed(text: str) -> Any:
    try:
        return parse(text)[0]
    except (ValueError, RecursionError):
        return None


def _before_damage(text: str) -> Any:
    """The value of what stands before the first mistake in a text."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return _parsed(_closed(text[: error.pos])) or None
    except (ValueError, RecursionError):
        return None
    return None


def _closed(text: str) -> str:
    """The text up to its last comma, and what closes the lists and objects that are open there."""
    open_now: list[str] = []
    cut, open_at_cut = 0, ""
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark in _CLOSING:
            open_now.append(_CLOSING[mark])
        elif mark == ",":
            cut, open_at_cut = match.start(), "".join(reversed(open_now))
        elif mark in "]}" and open_now:
            open_now.pop()
    if not cut:  # nothing is complete yet: a single long text
        inside = text.rstrip("\\") + '"' + "".join(reversed(open_now))
        return inside if _parsed(inside) is not None else text + "".join(reversed(open_now))
    return text[:cut] + open_at_cut
