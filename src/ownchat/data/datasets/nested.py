"""JSON whose top is neither a row nor a list of rows: lists of labelled texts, and handbooks kept as nested objects.

- ``{"train": [["text", "label"], ...], "test": [...]}`` or one such list (CLINC150)
- objects inside objects with sentences in them (ABCD's guidelines): one document for each part of the top
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

from ownchat.config import DataConfig
from ownchat.data.columns import is_prose
from ownchat.data.datasets.labels import FEWEST_ROWS, LONGEST_LABEL
from ownchat.data.datasets.rows import form_of
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.json_rows import read_rows
from ownchat.data.json_stream import JsonRow, rows
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, document, unreadable
from ownchat.data.records import Record

LARGEST = 64_000_000  # characters of a handbook, which is held in memory
FEWEST_NAMES = 3
_LOOK = 200
_SHORT = 40  # characters: shorter texts are values beside their key


def recognise_pairs(file: InputFile) -> float:
    """How surely a file is lists of [text, label]."""
    if file.magic or not file.sample.lstrip("\ufeff \t\r\n").startswith(("[", "{")):
        return 0.0
    return 0.0 if _pairs_at(file.outline) is None else 0.8


def read_pairs(file: InputFile, data: DataConfig) -> Reading:
    """Each pair is a row with the columns "text" and "label"; see :mod:`ownchat.data.datasets.labels`."""
    path = _pairs_at(file.outline) or ()

    def again() -> Iterator[JsonRow]:
        for row in rows(file, *path):
            if _is_pair(row.value):
                yield row._replace(value={"text": row.value[0], "label": row.value[1]})
            else:
                yield row if row.problem else row._replace(value=None, problem="not a pair of text and label")

    return read_rows(file.name, data, again, "json")


def recognise_handbook(file: InputFile) -> float:
    """How surely a file is one object of objects with sentences in them, and no list of rows."""
    if file.magic or not file.sample.lstrip("\ufeff \t\r\n").startswith("{"):
        return 0.0
    found = file.outline
    if not isinstance(found, dict) or not found or not all(isinstance(part, dict) for part in found.values()):
        return 0.0
    texts = list(_texts(found))
    prose = sum(len(text) for text in texts if _is_sentence(text))
    return 0.6 if prose > 0.5 * sum(map(len, texts)) and prose > 200 else 0.0


def read_handbook(file: InputFile, data: DataConfig) -> Reading:
    """One document for each key of the top, keys as headings. Raises UnreadableFile for what is damaged."""
    with file.open_text() as stream:
        text = stream.read(LARGEST + 1)
    try:
        if len(text) > LARGEST:
            raise ValueError(f"more than {LARGEST:,} characters in one object")
        found = orjson.loads(text.lstrip("\ufeff").encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        what = f"this is not JSON: {error}"
        raise UnreadableFile(what, where=file.name, fix="correct it, or save it as JSON Lines") from error

    def documents() -> Iterator[Record | Entry]:
        place, line = 0, 1
        for number, (key, value) in enumerate(found.items()):
            start = max(text.find(json.dumps(key, ensure_ascii=False), place), place)
            line += text.count("\n", place, start)
            place = start
            written = "\n".join([f"# {key}", "", *_written(value, 2)])
            yield document(
                written.strip() + "\n", "", file=file.name, format="handbook", line=line, offset=number or None
            )

    return Reading("handbook", f"one object of {len(found)} parts with sentences in them: documents", documents())


def recognise_texts(file: InputFile) -> float:
    """How surely a file is a list of texts with sentences in them."""
    if file.magic or not file.sample.lstrip("\ufeff \t\r\n").startswith("["):
        return 0.0
    found = file.outline
    if not isinstance(found, list) or not found:
        return 0.0
    prose = sum(isinstance(text, str) and _is_sentence(text) for text in found)
    return 0.7 if prose >= 0.5 * len(found) else 0.0


def read_texts(file: InputFile, data: DataConfig) -> Reading:
    """Each text is a document."""

    def documents() -> Iterator[Record | Entry]:
        for row in rows(file):
            if isinstance(row.value, str):
                yield document(row.value, "", file=file.name, format="json", line=row.line, offset=row.offset)
            else:
                rule = "invalid JSON" if row.problem else "not of the file's form"
                yield unreadable(file.name, row.line, rule, row.problem or "not a text", row.offset)

    return Reading("json", "a list of texts: documents", documents())


def recognise_description(file: InputFile) -> float:
    """How surely a file only describes a data set: its columns, its slots and intents, lists of names."""
    if file.magic or not file.sample.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        return 0.0
    return 0.9 if _described(file.outline) else 0.0


def read_description(file: InputFile, data: DataConfig) -> Reading:
    """Raises :class:`~ownchat.data.files.UnreadableFile` with the reason why nothing is taken."""
    what = _described(file.outline) or "a description of data"
    raise UnreadableFile(f"this is {what}: there is nothing to learn from it", where=file.name, fix="leave it out")


# ----------------------------------------------------------------------------------------------------------------


def _described(outline: Any) -> str:
    """What a file describes; empty: it holds data."""
    if isinstance(outline, list) and outline:
        if isinstance(outline[0], dict) and {"slots", "intents"} <= outline[0].keys():
            return "a list of services with their slots and intents"
        names = [isinstance(one, str) and not _is_sentence(one) and len(one) <= LONGEST_LABEL for one in outline]
        return "a list of names" if len(names) >= FEWEST_NAMES and all(names) else ""
    if not isinstance(outline, dict) or not outline:
        return ""
    if {"_data_files", "_fingerprint"} <= outline.keys():
        return "the state of the data set beside it"
    infos = [outline, *(value for value in outline.values() if isinstance(value, dict))]
    if any("features" in info and info.keys() & {"splits", "builder_name", "citation", "homepage"} for info in infos):
        return "the description of the data set beside it"
    if form_of(outline) is not None or not any(_texts(outline)):
        return ""
    listed = all(isinstance(value, list | dict) and _only_names(value) for value in outline.values())
    return "nothing but names or labels, without a sentence" if listed else ""


def _only_names(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(inner, list | dict) and _only_names(inner) for inner in value.values())
    return all(_only_names(inner) if isinstance(inner, list) else _is_name(inner) for inner in value)


def _is_name(value: Any) -> bool:
    return not isinstance(value, dict) and not (isinstance(value, str) and _is_sentence(value))


def _pairs_at(outline: Any) -> tuple[str, ...] | None:
    if isinstance(outline, list):
        return () if _are_pairs(outline) else None
    if isinstance(outline, dict) and outline:
        values = [value for value in outline.values() if value != []]
        if values and all(isinstance(value, list) and _mostly_pairs(value[:_LOOK]) for value in values):
            return ("*",) if _are_pairs(values[0]) else None
    return None


def _mostly_pairs(found: list[Any]) -> bool:
    return sum(map(_is_pair, found)) >= 0.8 * len(found)


def _are_pairs(found: list[Any]) -> bool:
    pairs = found[:_LOOK]
    if len(pairs) < FEWEST_ROWS or not _mostly_pairs(pairs):
        return False
    pairs = [pair for pair in pairs if _is_pair(pair)]
    labels = [label for _, label in pairs]
    return len(set(labels)) * 2 <= len(labels) and is_prose([text for text, _ in pairs])


def _is_pair(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(part, str) for part in value):
        return False
    return len(value[1]) <= LONGEST_LABEL


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _is_sentence(text: str) -> bool:
    return len(text) > 20 and text.count(" ") >= 3


def _written(value: Any, depth: int) -> Iterator[str]:
    """A value as lines of Markdown: keys are headings where much stands under them, else names before values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if inner is None or inner == "" or inner == [] or inner == {}:
                continue
            if isinstance(inner, dict) or (isinstance(inner, list) and any(isinstance(one, dict) for one in inner)):
                yield from ("", f"{'#' * min(depth, 6)} {key}", "")
                yield from _written(inner, depth + 1)
            elif isinstance(inner, list):
                yield f"{key}:"
                yield from _written(inner, depth)
            elif isinstance(inner, str) and (len(inner) > _SHORT or _is_sentence(inner)):
                yield from (inner.strip(), "")
            else:
                yield f"{key}: {inner}"
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict | list):
                yield from _written(inner, depth)
                yield ""
            elif inner is not None:
                yield f"- {inner}"
    elif value is not None:
        yield f"{value}"
