"""JSON read as a stream: the elements of one list inside a file of any size, each with its line.

The standard library's decoder does the parsing, on a window of the file that grows only as far as one element needs.
Damage costs the element it stands in: reading goes on at the next one of the same shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from ownchat.data.files import LONGEST_LINE, InputFile

WINDOW = 4_000_000  # characters read at once
LARGEST_VALUE = 256_000_000  # characters of one element: a larger one is a file without its end
LARGEST_CONTEXT = 64_000  # characters of a value that is kept for the rows after it

_SPACE = re.compile(r"[ \t\r\n]*")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escaped half of a character beyond U+FFFF
_NEXT = re.compile(r",\s*(?=[\[{])")
_DECODER = json.JSONDecoder()


class JsonRow(NamedTuple):
    """An element of a list; ``problem`` says why a stretch of the file is none (its value is None then).

    ``notes``: what was mended in it. ``context``: small values of the objects around it that stand before the list.
    ``offset``: how many rows stand before it on its line (None: it is the first): many files are one line.
    """

    line: int
    value: Any
    problem: str = ""
    notes: tuple[str, ...] = ()
    context: dict[str, Any] = {}  # noqa: RUF012 - never changed
    offset: int | None = None


def rows(file: InputFile, *path: str) -> Iterator[JsonRow]:
    """The elements of the list at ``path`` ("*": of every element), else the values of the file one by one.

    Without a path: the elements of the list that the file is, or the objects that stand in it one after the other.
    A path that does not exist gives nothing.
    """
    if not path and isinstance(file.outline, list) and file.sample.lstrip("\ufeff \t\r\n").startswith("{"):
        yield from (row for row in json_lines(file) if row.value != {})
        return
    stream = _Stream(file)
    try:
        if not path and stream.peek() != "[":
            yield from _values(stream)
            return
        yield from _descend(stream, path, {})
        if stream.peek():
            yield stream.row(stream.line(), None, "more text after the end")
    except (ValueError, RecursionError) as error:
        yield stream.row(stream.line(error), None, _reason(error))
    finally:
        stream.close()


def json_lines(file: InputFile) -> Iterator[JsonRow]:
    """The value of each line; a blank line is an empty object, which the ledger calls empty."""
    for number, line in file.lines():
        if not line.strip():
            yield JsonRow(number, {})
        elif len(line) >= LONGEST_LINE:
            yield JsonRow(number, None, f"a line of more than {LONGEST_LINE:,} characters")
        else:
            try:
                value, notes = parse(line)
            except (ValueError, RecursionError) as error:  # ValueError: also numbers of thousands of digits
                yield JsonRow(number, None, _reason(error))
            else:
                yield JsonRow(number, value, "", notes)


def parse(text: str) -> tuple[Any, tuple[str, ...]]:
    """The value of a text, and what was mended in it: half characters, keys that stand twice.

    Raises :class:`ValueError` for what is not JSON and :class:`RecursionError` for lists thousands deep.

    >>> parse('{"a": 1, "a": 2}')
    ({'a': 2}, ('a key stands twice, the last one counts',))
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:  # stricter than what others write: NaN, 65-bit numbers, half characters
        value = json.loads(text)
    return _mended(value, text, 0, len(text))


# --------------------------------------------------------------------------------------------------------- walking


def _values(stream: _Stream) -> Iterator[JsonRow]:
    """Values that stand one after the other: one object, or objects on lines."""
    while stream.peek():
        line = stream.line()
        value, notes = stream.value()
        yield stream.row(line, value, "", notes)


def _descend(stream: _Stream, path: tuple[str, ...], context: dict[str, Any]) -> Iterator[JsonRow]:
    """Rows at ``path`` of the value that starts here; the value is consumed to its end."""
    opening = stream.peek()
    if opening == "[" and (not path or path[0] == "*"):
        yield from _elements(stream, path[1:], context, rows_here=not path)
    elif opening == "{" and path:
        yield from _members(stream, path, context)
    else:
        stream.skip_value()


def _elements(stream: _Stream, path: tuple[str, ...], context: dict[str, Any], *, rows_here: bool) -> Iterator[JsonRow]:
    shape: frozenset[str] = frozenset()
    stream.take("[")
    if stream.peek() == "]":
        stream.take("]")
        return
    while True:
        stream.peek()
        line = stream.line()
        try:
            if rows_here:
                value, notes = stream.value()
                if isinstance(value, dict):
                    shape = frozenset(value)
                yield stream.row(line, value, "", notes, context)
            else:
                yield from _descend(stream, path, dict(context))
            if stream.peek() == ",":
                stream.take(",")
                continue
            stream.take("]")
            return
        except (ValueError, RecursionError) as error:
            if not rows_here:
                raise
            place = stream.line(error)
            reason = _reason(error) if place == line else f"{_reason(error)}, in line {place}"
            yield stream.row(line, None, reason, (), context)
            if not stream.resume(shape):
                stream.to_the_end()
                return


def _members(stream: _Stream, path: tuple[str, ...], context: dict[str, Any]) -> Iterator[JsonRow]:
    stream.take("{")
    if stream.peek() == "}":
        stream.take("}")
        return
    while True:
        key, _ = stream.value()
        if not isinstance(key, str):
            raise json.JSONDecodeError("expected a name in quotation marks", stream.text, stream.position)
        stream.take(":")
        if key == path[0] or path[0] == "*":
            yield from _descend(stream, path[1:], {**context, "*": key} if path[0] == "*" else context)
        elif (value := stream.skip_value()) is not None:
            context[key] = value
        if stream.peek() == ",":
            stream.take(",")
            continue
        stream.take("}")
        return


class _Stream:
    """A window of a file's text, and a place in it."""

    def __init__(self, file: InputFile) -> None:
        self._file = file.open_text(newline="")
        self.text, self.position, self._lines_before, self._ended = "", 0, 1, False
        self._counted = 0  # place in the text up to which lines are in _lines_before
        self._row_line, self._rows_on_it = 0, 0

    def close(self) -> None:
        self._file.close()

    def line(self, error: BaseException | None = None) -> int:
        """The line of the place, or of an error."""
        place = error.pos if isinstance(error, json.JSONDecodeError) and error.doc is self.text else self.position
        place = max(place, self._counted)
        self._lines_before += self.text.count("\n", self._counted, place)
        self._counted = place
        return self._lines_before

    def row(self, line: int, value: Any, problem: str = "", notes: tuple[str, ...] = (),
            context: dict[str, Any] | None = None) -> JsonRow:  # fmt: skip
        """A row with its place among those of its line."""
        self._rows_on_it = self._rows_on_it + 1 if line == self._row_line else 0
        self._row_line = line
        return JsonRow(line, value, problem, notes, {} if context is None else context, self._rows_on_it or None)

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            match = _SPACE.match(self.text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.text):
                return self.text[self.position]
            if not self._fill():
                return ""

    def take(self, character: str) -> None:
        if self.peek() != character:
            raise json.JSONDecodeError(f"expected {character}", self.text, self.position)
        self.position += 1

    def value(self) -> tuple[Any, tuple[str, ...]]:
        """The value that starts here, and what was mended in it."""
        self.peek()
        if self.position > WINDOW // 2:
            self._drop()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                inside = not error.msg.startswith("Unterminated") and error.pos < len(self.text) - 16
                if inside or len(self.text) - self.position > LARGEST_VALUE or not self._fill():
                    raise
                continue
            if type(value) in (int, float) and end > len(self.text) - 4 and self._fill():
                continue  # the number may go on: "0." is read as 0 and a stop
            start, self.position = self.position, end
            return _mended(value, self.text, start, end)

    def skip_value(self) -> Any:
        """Go past the value that starts here, list elements one by one; the value if it is small, else None."""
        if self.peek() != "[":
            start = self.position
            value, _ = self.value()
            small = not isinstance(value, dict | str) or self.position - start <= LARGEST_CONTEXT
            return value if small else None
        self.take("[")
        kept: list[Any] = []
        size = 0
        if self.peek() == "]":
            self.take("]")
            return kept
        while True:
            before = self.position
            kept.append(self.value()[0])
            size += max(1, self.position - before)
            if size > LARGEST_CONTEXT:
                kept = []
            if self.peek() != ",":
                break
            self.take(",")
        self.take("]")
        return kept if size <= LARGEST_CONTEXT else None

    def resume(self, shape: frozenset[str]) -> bool:
        """Go to the next element that looks like those before (most of their keys); False: there is none."""
        self.position += 1
        while shape:
            match = _NEXT.search(self.text, self.position)
            if match is None or match.end() == len(self.text):
                self.position = max(self.position, len(self.text) - 100)  # a comma may stand at the window's end
                self._drop()
                if not self._fill():
                    return False
                continue
            self.position = match.end()
            if self.position > WINDOW // 2:
                self._drop()
            start = self.position  # stays where it is: value() drops only what lies before
            try:
                value, _ = self.value()
            except (ValueError, RecursionError):
                self.position = start
                continue
            self.position = start
            if isinstance(value, dict) and len(shape & set(value)) * 2 > len(shape):
                return True
        return False

    def to_the_end(self) -> None:
        """Leave out what remains."""
        while True:
            self.position = len(self.text)
            self._drop()
            if not self._fill():
                return

    def _fill(self) -> bool:
        """More text; at least as much as is held already, so that large values are not parsed over and over."""
        if self._ended:
            return False
        more = self._file.read(max(WINDOW, len(self.text) - self.position))
        self._ended = not more
        self.text += more
        return bool(more)

    def _drop(self) -> None:
        self.line()
        self.text, self.position, self._counted = self.text[self.position :], 0, 0


# --------------------------------------------------------------------------------------------------------- mending


def _mended(value: Any, text: str, start: int, end: int) -> tuple[Any, tuple[str, ...]]:
    """A value without halves of characters (``\\ud83d`` alone), which no encoding can hold; what was odd in it."""
    notes: tuple[str, ...] = ()
    doubtful = isinstance(value, dict | list) and text.count('":', start, end) > _names(value)
    if doubtful and _has_duplicates(text[start:end]):
        notes = ("a key stands twice, the last one counts",)
    if text.find("\\u", start, end) >= 0 and _HALF.search(text, start, end):
        mended = _replace_halves(value)
        if mended != value:
            return mended, (*notes, "half a character replaced")
    return value, notes


def _names(value: Any) -> int:
    """How often a name or a text is followed by a colon when the value is written: less than in the source if a key
    stood there twice. Writing is faster than walking."""
    try:
        return orjson.dumps(value).count(b'":')
    except TypeError:  # numbers of more than 64 bits, half characters
        return 0


def _has_duplicates(text: str) -> bool:
    found = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        made = dict(items)
        found |= len(made) < len(items)
        return made

    json.loads(text, object_pairs_hook=pairs)
    return found


def _replace_halves(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_replace_halves(item) for item in value]
    if isinstance(value, dict):
        return {_replace_halves(key): _replace_halves(item) for key, item in value.items()}
    return value


def _reason(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (column {error.colno})"
    return "values inside values, thousands deep" if isinstance(error, RecursionError) else str(error)
