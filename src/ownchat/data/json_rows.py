"""JSON Lines and JSON: an object a line, a list of objects, or an object with one list of objects in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import orjson

from ownchat.config import DataConfig
from ownchat.data.columns import Columns, choose, group_of
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.messages import conversation, is_conversation
from ownchat.data.reading import Reading, dropped, row_id
from ownchat.data.records import Record
from ownchat.errors import DataError

LOOK_ROWS = 200
_SPACE = re.compile(r"[ \t\r\n]*")

Rows = Iterable[tuple[int, Any, bool]]  # (line where the row starts, its value, whether half a character was replaced)


def read_json_lines(file: InputFile, data: DataConfig) -> Reading:
    """One JSON object a line, streamed. Raises :class:`~ownchat.errors.DataError` with line and column."""
    return _read(file, data, _lines(file), "jsonl")


def read_json(file: InputFile, data: DataConfig) -> Reading:
    """A list of objects, an object that holds one such list, or one object alone.

    The text of the file is held in memory, its values one at a time. Raises
    :class:`~ownchat.errors.DataError` with line and column for what is not JSON, and
    :class:`~ownchat.data.files.UnreadableFile` for JSON without rows.
    """
    return _read(file, data, _elements(file), "json")


def looks_like_json(file: InputFile) -> str:
    """``"jsonl"``, ``"json"``, or empty for what is neither; a name with .json or .jsonl is believed."""
    text = file.sample.lstrip()
    named = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json"}.get(file.suffix, "")
    if not text.startswith(("{", "[")):
        return named
    first, _, rest = text.partition("\n")
    if text.startswith("{") and _parses(first):
        return "jsonl" if rest.strip() or named != "json" else "json"
    if named == "jsonl" and text.startswith("{"):
        return "jsonl"  # its first line is wrong: say so
    if named or _parses(text) or (not file.whole and re.match(r'\[\s*\{\s*"|\{\s*"', text)):
        return "json"
    return ""


# ----------------------------------------------------------------------------------------------------------------


def _read(file: InputFile, data: DataConfig, rows: Rows, format: str) -> Reading:
    stream = iter(rows)
    first = list(islice(stream, LOOK_ROWS))
    objects = [value for _, value, _ in first if isinstance(value, dict)]
    plain = [_cells(row) for row in objects if not is_conversation(row)]
    if not objects and first:
        value = first[0][1]
        what = "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "a bare value"
        raise UnreadableFile(
            f"line {first[0][0]}: a row must be an object, not {what}", where=file.name, fix='write {"messages": [...]}'
        )
    columns, names = None, list(dict.fromkeys(name for row in plain for name in row))
    if plain:
        try:
            columns = choose(names, plain, data.map, where=file.name, text_is_document=True)
        except UnreadableFile as error:
            if len(plain) < len(objects):  # conversations among other rows: each other row will be named
                columns = None
            else:
                fix = 'each row needs "messages", or keys such as "question" and "answer"; ' + error.fix
                keys = list(dict.fromkeys(key for row in objects for key in row))
                what = f"no key can be an answer; keys are {', '.join(map(json.dumps, keys))}"
                raise UnreadableFile(what, where=file.name, fix=fix) from error
    parts = ["messages"] if len(plain) < len(objects) else []
    parts += [columns.understood(names)] if columns else []

    def records() -> Iterator[Record | Entry]:
        for line, value, mended in chain(first, stream):
            if mended:
                detail = f"{file.name}, line {line}: \ufffd stands for what was cut"
                yield Entry("row", row_id(file.name, line), "changed", "half a character replaced", detail=detail)
            yield _row(value, line, columns, file, data, format)

    return Reading(format, "; ".join(parts), records(), columns.named() if columns else {"messages": "messages"})


def _row(
    value: Any, line: int, columns: Columns | None, file: InputFile, data: DataConfig, format: str
) -> Record | Entry:
    if not isinstance(value, dict):
        kind = "null" if value is None else "text" if isinstance(value, str) else type(value).__name__
        what = f"line {line}: a row must be an object, not {kind}"
        raise DataError(what, where=file.name, fix='write {"messages": [{"role": ..., "content": ...}]}')
    if is_conversation(value):
        return conversation(value, group_of(value, data.map), file=file.name, format=format, line=line)
    if not value:
        return dropped(file.name, line, "empty")
    if columns is None:
        what = f'line {line}: no "messages" in this row; its keys are {", ".join(map(json.dumps, value))}'
        raise DataError(what, where=file.name, fix="give every row messages, or put such rows into a file of their own")
    for name in (*columns.question, columns.answer, columns.system, columns.text):
        if isinstance(value.get(name), list | dict):
            kind = "a list" if isinstance(value[name], list) else "an object"
            raise DataError(f"line {line}: {name} must be text, not {kind}", where=file.name, fix="write it as text")
    return columns.row(_cells(value), file=file.name, format=format, line=line)


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """The values of an object that can stand in a cell of a table."""
    kept = {key: value for key, value in row.items() if isinstance(value, str | int | float) or value is None}
    return {key: "" if value is None else str(value) for key, value in kept.items()}


# --------------------------------------------------------------------------------------------------------- parsing

_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escaped half of a character beyond U+FFFF


def _lines(file: InputFile) -> Rows:
    with file.open_text() as text:
        for number, line in enumerate(text, 1):
            if not line.strip():
                yield number, {}, False
                continue
            try:
                yield number, orjson.loads(line), False
                continue
            except orjson.JSONDecodeError:  # stricter than what others write: NaN, 65-bit numbers, half characters
                pass
            try:
                yield number, *_mended(json.loads(line), line)
            except (ValueError, RecursionError) as error:
                raise _invalid(error, file, number) from error


def _elements(file: InputFile) -> Rows:
    with file.open_text() as handle:
        text = handle.read()
    try:
        position = _skip(text, 0)
        if text[position : position + 1] == "[":
            yield from _list(text, position, to_the_end=True)
            return
        value, mended, end = _decode(text, position)
        if _skip(text, end) < len(text):
            raise json.JSONDecodeError("more text after the end", text, end)
        is_row = not isinstance(value, dict) or is_conversation(value)
        lists = [] if is_row else [key for key, item in value.items() if _is_rows(item)]
        if len(lists) > 1:
            what = f"there are several lists of rows: {', '.join(map(json.dumps, lists))}"
            raise UnreadableFile(what, where=file.name, fix="put each into a file of its own")
        if lists:
            yield from _list(text, _start_of(text, position, lists[0]))
        else:
            yield 1, value, mended
    except (ValueError, RecursionError) as error:  # JSONDecodeError, and numbers of thousands of digits
        raise _invalid(error, file, 1) from error


def _list(text: str, position: int, *, to_the_end: bool = False) -> Rows:
    """The elements of the list that starts at ``position``, each with its line.

    A list of turns is one row: the file is one conversation.
    """
    line, counted = 1, 0
    position = first = _skip(text, position + 1)
    turns: list[Any] = []
    turns_line, turns_mended = 0, False
    while text[position : position + 1] != "]":
        value, mended, end = _decode(text, position)
        line, counted = line + text.count("\n", counted, position), position
        if position == first and isinstance(value, dict) and "role" in value and not is_conversation(value):
            turns_line = line
        if turns_line:
            turns.append(value)
            turns_mended |= mended
        else:
            yield line, value, mended
        position = _skip(text, end)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            raise json.JSONDecodeError("expected a comma or the end of the list", text, position)
    if to_the_end and _skip(text, position + 1) < len(text):
        raise json.JSONDecodeError("more text after the end of the list", text, position + 1)
    if turns:
        yield turns_line, {"messages": turns}, turns_mended


def _start_of(text: str, position: int, wanted: str) -> int:
    """Where the value of a key of the object at ``position`` begins; the object is known to be valid."""
    while True:
        key, _, end = _decode(text, _skip(text, position + 1))
        position = _skip(text, _skip(text, end) + 1)  # past the colon
        if key == wanted:
            return position
        position = _skip(text, _decode(text, position)[2])  # at the comma


_DECODER = json.JSONDecoder()


def _decode(text: str, position: int) -> tuple[Any, bool, int]:
    """A value, whether it was mended, and where it ends."""
    value, end = _DECODER.raw_decode(text, position)
    return *_mended(value, text[position:end]), end


def _mended(value: Any, source: str) -> tuple[Any, bool]:
    """A value without halves of characters (``\\ud83d`` alone), which no encoding can hold; whether there were any."""
    if not _HALF.search(source):
        return value, False
    mended = _replace_halves(value)
    return mended, mended != value


def _replace_halves(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_replace_halves(item) for item in value]
    if isinstance(value, dict):
        return {_replace_halves(key): _replace_halves(item) for key, item in value.items()}
    return value


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: lists in lists, thousands deep
        return False
    return True


def _invalid(error: Exception, file: InputFile, line: int) -> DataError:
    column = 1
    if isinstance(error, json.JSONDecodeError):
        line, column = line + error.lineno - 1, error.colno
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    what = f"line {line}: invalid JSON at column {column}: {reason}"
    return DataError(what, where=file.name, fix="correct the line, or remove it")
