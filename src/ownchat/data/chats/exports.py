"""What the readers of chat exports share: rows that are objects, clocks, and several talks in one export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.conversations import conversations
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.json_stream import JsonRow, rows
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped, place_of, row_id, unreadable
from ownchat.data.records import Record
from ownchat.data.talk import Talk

FEW = 5  # speakers up to which a group talks about one thing at a time


def objects(file: InputFile, *path: str) -> Iterator[JsonRow | Entry]:
    """The objects of a list in a JSON file; what is no object, or damaged, comes as an entry that says so."""
    for row in rows(file, *path):
        if row.problem:
            yield unreadable(file.name, row.line, "invalid JSON", row.problem, row.offset)
        elif not isinstance(row.value, dict):
            yield unreadable(file.name, row.line, "not an object", offset=row.offset)
        else:
            for note in row.notes:
                id, detail = row_id(file.name, row.line, row.offset), place_of(file.name, row.line, row.offset)
                yield Entry("row", id, "changed", note, parents=(file.name,), detail=detail)
            yield row


def put_aside(file: InputFile, format: str, rule: str, understood: str) -> Reading:
    """A file of an export that holds no conversation: each of its rows is dropped by ``rule``."""

    def entries() -> Iterator[Record | Entry]:
        for row in objects(file):
            yield row if isinstance(row, Entry) else dropped(file.name, row.line, rule, row.offset)

    return Reading(format, understood, entries(), aside=True)


def read_talks(talks: Sequence[Talk], data: DataConfig) -> Reading:
    """Conversations of several talks as one reading: an export may hold chats of two people and channels of many."""
    readings = [conversations(talk, data) for talk in talks]
    if len(readings) == 1:
        return readings[0]
    entered: Counter[str] = Counter()

    def items() -> Iterator[Record | Entry]:
        for reading in readings:
            yield from reading.rows
            entered.update(reading.entered)

    understood = "; ".join(dict.fromkeys(reading.understood for reading in readings if reading.understood))
    notes = list(dict.fromkeys(note for reading in readings for note in reading.notes))
    return Reading(readings[0].format, understood, items(), readings[0].columns, notes=notes, entered=entered)


def not_such(file: InputFile, what: str) -> UnreadableFile:
    """The error for a file that is read as a format, because somebody said so, and is not of it."""
    return UnreadableFile(f"there are no {what} in it", where=file.name, fix="leave data.format out: it is found out")


def left_out(file: InputFile, counts: Counter[str]) -> Iterator[Entry]:
    """Events for what was taken out of messages that are kept (images, marks of citations), one for each rule."""
    for rule, count in sorted(counts.items()):
        yield Entry("row", row_id(file.name, 0), "changed", rule, count, parents=(file.name,), detail=file.name)


def seconds(moment: Any) -> float | None:
    """Seconds since 1970 of a number, a number in quotes, or an ISO 8601 text (UTC where it names no zone).

    >>> seconds("2023-05-01T10:00:00.000+02:00"), seconds("1682928000.25"), seconds("soon")
    (1682928000.0, 1682928000.25, None)
    """
    if isinstance(moment, bool) or not isinstance(moment, int | float | str):
        return None
    try:
        value = float(moment)
    except ValueError:
        try:
            read = datetime.fromisoformat(str(moment))
        except ValueError:
            return None
        value = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    except OverflowError:  # an integer beyond all floats
        return None
    return value if -1e11 < value < 1e11 else None  # also drops "nan" and "inf"


def text_of(value: Any) -> str:
    """A text of an export: what is none counts as empty, a number as its digits."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects of a list that should hold nothing else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def first_objects(outline: Any) -> list[dict[str, Any]]:
    """The first objects of a file: of a list, or the one object that it is."""
    return [outline] if isinstance(outline, dict) else dicts(outline)[:20]


def have_keys(found: Iterable[dict[str, Any]], *keys: str) -> bool:
    """Whether there are objects, and most of them have all of ``keys``."""
    having = [all(key in item for key in keys) for item in found]
    return bool(having) and 2 * sum(having) > len(having)
