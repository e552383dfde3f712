"""JSON Lines and JSON: an object a line, a list of objects, or an object with one list of objects in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.columns import group_of, is_named
from ownchat.data.datasets.plain import Plain, understand
from ownchat.data.datasets.rows import Form, form_of
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.json_stream import JsonRow, json_lines, rows
from ownchat.data.ledger import Entry
from ownchat.data.messages import is_conversation
from ownchat.data.reading import Reading, dropped, place_of, row_id, unreadable
from ownchat.data.records import Record
from ownchat.errors import DataError

LOOK_ROWS = 200

Rows = Iterable[JsonRow]


def read_json_lines(file: InputFile, data: DataConfig) -> Reading:
    """One JSON object a line, streamed; a line that is damaged or of another form is an entry, and reading goes on."""
    return read_rows(file.name, data, lambda: json_lines(file), "jsonl")


def read_json(file: InputFile, data: DataConfig) -> Reading:
    """A list of objects, an object that holds one such list, or one object alone; streamed.

    Raises :class:`~ownchat.data.files.UnreadableFile` for JSON without rows.
    """
    return read_rows(file.name, data, lambda: json_elements(file), "json")


def recognise_json_lines(file: InputFile) -> float:
    """How surely a file is JSON lines that the generic reader takes."""
    return _sure(file) if looks_like_json(file) == "jsonl" else 0.0


def recognise_json(file: InputFile) -> float:
    """How surely a file is JSON that the generic reader takes."""
    return _sure(file) if looks_like_json(file) == "json" else 0.0


def _sure(file: InputFile) -> float:
    """Most of a row of a published form, less of one whose keys are named question and answer."""
    found = file.outline
    if isinstance(found, dict) and not form_of(found):
        found = next((value for value in found.values() if _is_rows(value)), found)
    row = found[0] if isinstance(found, list) and found else found
    if not isinstance(row, dict):
        return 0.5
    return 0.9 if form_of(row) else 0.75 if is_named(list(row)) or row.keys() == {"text"} else 0.5


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
    if named or (file.whole and _parses(text)) or (not file.whole and file.outline):
        return "json"
    return ""


# ----------------------------------------------------------------------------------------------------------------


def read_rows(name: str, data: DataConfig, again: Callable[[], Rows], format: str) -> Reading:
    """Rows of any origin (lines, elements, table batches) as a reading; ``name`` is the file's.

    ``again`` starts reading, a second time where all rows must be seen before the first is understood.
    """
    stream = iter(again())
    first = list(islice(stream, LOOK_ROWS))
    good = [row for row in first if not row.problem]
    objects = [row.value for row in good if isinstance(row.value, dict)]
    forms = [_form(row, data) for row in objects]
    plain = [_cells(row) for row, form in zip(objects, forms, strict=True) if form is None]
    if first and not good:
        what = f"line {first[0].line}: {first[0].problem}"
        raise UnreadableFile(f"this is not JSON: {what}", where=name, fix="correct the line, or remove it")
    if not objects and good:
        value = good[0].value
        what = "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "a bare value"
        raise UnreadableFile(
            f"line {good[0].line}: a row must be an object, not {what}", where=name, fix='write {"messages": [...]}'
        )
    columns, names = None, list(dict.fromkeys(name for row in plain for name in row))
    if plain:
        cells = (_cells(row.value) for row in again() if isinstance(row.value, dict) and not _form(row.value, data))
        try:
            columns = understand(names, plain, data, where=name, text_is_document=True, all_rows=cells)
        except UnreadableFile as error:
            if len(plain) < len(objects):  # conversations among other rows: each other row will be named
                columns = None
            else:
                fix = 'each row needs "messages", or keys such as "question" and "answer"; ' + error.fix
                keys = list(dict.fromkeys(key for row in objects for key in row))
                more = f" and {len(keys) - 12} more" if len(keys) > 12 else ""
                what = f"no key can be an answer; keys are {', '.join(map(json.dumps, keys[:12]))}{more}"
                raise UnreadableFile(what, where=name, fix=fix) from error
    parts = list(dict.fromkeys(form.name for form in forms if form is not None))
    parts += [columns.understood(names)] if columns else []

    def records() -> Iterator[Record | Entry]:
        for row in chain(first, stream):
            if row.problem:
                yield unreadable(name, row.line, "invalid JSON", row.problem, row.offset)
                continue
            for note in row.notes:
                id, place = row_id(name, row.line, row.offset), place_of(name, row.line, row.offset)
                yield Entry("row", id, "changed", note, detail=place)
            try:
                if isinstance(row.value, dict) and (form := _form(row.value, data)) is not None:
                    group = group_of(row.value, data.map)
                    made = form.read(row.value, group, file=name, format=format, line=row.line, offset=row.offset)
                    yield from list(made)
                else:
                    yield from _row(row, columns, name, format)
            except DataError as error:
                what = error.what.removeprefix(f"line {row.line}: ").removeprefix(f"line {row.line} ")
                yield unreadable(name, row.line, "not of the file's form", f"{what} ({error.fix})", row.offset)
        if columns is not None:
            yield from columns.rest()

    named = columns.named() if columns else {"messages": "messages"} if "messages" in parts else {}
    return Reading(format, "; ".join(parts), records(), named)


def _form(row: Mapping[str, Any], data: DataConfig) -> Form | None:
    """The published form of an object; keys that the user mapped make it a row of a table."""
    if data.map and not is_conversation(row) and data.map.keys() - {"group", "system"}:
        return None
    return form_of(row)


def _row(row: JsonRow, columns: Plain | None, name: str, format: str) -> Iterable[Record | Entry]:
    value, line = row.value, row.line
    if not isinstance(value, dict):
        kind = "null" if value is None else "text" if isinstance(value, str) else type(value).__name__
        what = f"line {line}: a row must be an object, not {kind}"
        raise DataError(what, where=name, fix='write {"messages": [{"role": ..., "content": ...}]}')
    if not value:
        return [dropped(name, line, "empty", row.offset)]
    if columns is None:
        what = f'line {line}: no "messages" in this row; its keys are {", ".join(map(json.dumps, value))}'
        raise DataError(what, where=name, fix="give every row messages, or put such rows into a file of their own")
    for key in columns.texts():
        if isinstance(value.get(key), list | dict):
            kind = "a list" if isinstance(value[key], list) else "an object"
            raise DataError(f"line {line}: {key} must be text, not {kind}", where=name, fix="write it as text")
    return columns.rows(_cells(value), file=name, format=format, line=line, offset=row.offset)


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """The values of an object that can stand in a cell of a table."""
    kept = {key: value for key, value in row.items() if isinstance(value, str | int | float) or value is None}
    return {key: "" if value is None else str(value) for key, value in kept.items()}


# --------------------------------------------------------------------------------------------------------- parsing


def json_elements(file: InputFile) -> Iterator[JsonRow]:
    """The rows of a JSON file: elements of its list, or of the one list of objects in its object, or the object.

    A list of turns is one row: the file is one conversation.
    """
    beginning = file.outline
    if isinstance(beginning, dict) and not is_conversation(beginning):
        lists = [key for key, item in beginning.items() if _is_rows(item)]
        if len(lists) > 1:
            what = f"there are several lists of rows: {', '.join(map(json.dumps, lists))}"
            raise UnreadableFile(what, where=file.name, fix="put each into a file of its own")
        if lists:
            return rows(file, lists[0])
    first = beginning[0] if isinstance(beginning, list) and beginning else None
    if isinstance(first, dict) and "role" in first and not is_conversation(first):
        return _one_conversation(rows(file))
    return rows(file)


def _one_conversation(turns: Rows) -> Iterator[JsonRow]:
    held = list(turns)
    yield from (turn for turn in held if turn.problem)
    good = [turn for turn in held if not turn.problem]
    notes = tuple(dict.fromkeys(note for turn in good for note in turn.notes))
    yield JsonRow(good[0].line if good else 1, {"messages": [turn.value for turn in good]}, "", notes)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: lists in lists, thousands deep
        return False
    return True
