"""Dialogue sets with a JSON form of their own: objects that each hold one list of turns.

A turn is an object with a speaker and a text under any of their usual names (Schema-Guided Dialogue: ``turns[{speaker,
utterance}]``, Taskmaster: ``utterances[{speaker, text}]``), a pair (ABCD: ``["agent", "Hi!"]``), or a text where
speakers take turns (DailyDialog). The objects stand in a list, on lines, in lists under names ("train", "test"), or
under their own ids (MultiWOZ: ``{"PMUL1.json": {"log": [{"text": ...}]}}``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.conversations import conversations
from ownchat.data.datasets.rows import form_of
from ownchat.data.files import InputFile
from ownchat.data.json_stream import JsonRow, rows
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, unreadable
from ownchat.data.talk import Talk, Turn, not_a_turn

SPEAKERS = ("speaker", "role", "from", "sender", "author", "who", "speaker_id", "participant", "user", "agent", "name")
TEXTS = ("text", "utterance", "value", "content", "message", "body", "utt", "sentence")
_LISTS = (
    "original", "turns", "utterances", "dialogue", "dialog", "dialogs", "conversation", "conversations", "messages",
    "log", "chat", "lines", "transcript", "content", "history",
)  # fmt: skip
_IDS = ("dialogue_id", "dialog_id", "conversation_id", "convo_id", "conv_id", "chat_id", "dialogue_idx", "id", "_id")
_ACTIONS = ("action", "event", "api", "note")  # what is done, not said
_LOOK_ROWS = 20

Rows = Callable[[], Iterable[JsonRow]]


def recognise_dialogues(file: InputFile) -> float:
    """How surely a file holds objects with a list of turns each, in a form that is nobody's standard."""
    if file.magic or not file.sample.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        return 0.0
    path = _path(file.outline)
    return 0.0 if path is None else 0.7


def read_dialogues(file: InputFile, data: DataConfig) -> Reading:
    """Each object is a conversation; who the assistant is, is told by the speakers' names, else by who answers."""
    path = _path(file.outline) or ()
    if len(path) == 2:
        return _by_key(file.name, lambda: rows(file, *path), path[1], data)
    return dialogues(file.name, data, lambda: rows(file, *path))


def dialogues(name: str, data: DataConfig, again: Rows) -> Reading:
    """Objects of any origin with a list of turns each, as a reading; ``name`` is the file's."""
    looked = [row.value for row in islice(again(), _LOOK_ROWS)]
    key = next((found for value in looked if (found := turn_list(value))), "")

    def turns() -> Iterator[Turn | Entry]:
        last = ""
        for number, row in enumerate(again()):
            if row.problem:
                yield unreadable(name, row.line, "invalid JSON", row.problem, row.offset)
                continue
            found = turn_list(row.value, key)
            if not found:
                empty = isinstance(row.value, dict) and row.value.get(key) == []
                detail = "its list of turns is empty" if empty else f'no list of turns under "{key}"'
                yield unreadable(name, row.line, "not of the file's form", detail, row.offset)
                continue
            where = row.value[found] if isinstance(row.value, dict) else row.value
            thread = _id(row.value) or f"{number + 1}"
            if thread == last:  # two rows with one id are two dialogues
                thread = f"{thread} {number + 1}"
            last = thread
            for place, turn in enumerate(where):
                yield _turn(turn, place, thread, name, row.line)

    where = f'turns in "{key}"' if key != "*" else "lists of turns"
    others = dict.fromkeys(name for value in looked if isinstance(value, dict) for name in value)
    unused = [name for name in others if name not in (key, *_IDS)]
    where += f"; not used: {', '.join(unused[:12])}" if unused else ""
    return conversations(Talk("dialogues", name, turns, where, threads_are_whole=True), data)


def turn_list(row: Any, name: str = "") -> str:
    """The key under which an object holds its turns ("*": it is a list of turns itself); empty: there is none.

    >>> turn_list({"id": 1, "turns": [{"speaker": "USER", "utterance": "Hi"}, {"speaker": "SYSTEM", "utterance": "?"}]})
    'turns'
    """
    if isinstance(row, list):
        return "*" if len(row) > 1 and all(_says(turn) for turn in row[:3]) else ""
    if not isinstance(row, dict):
        return ""
    if name and _is_turns(row.get(name), name):
        return name
    known = [key for key in _LISTS if _is_turns(row.get(key), key)]
    return next(iter(known or [key for key, value in row.items() if _is_turns(value, "")]), "")


# ----------------------------------------------------------------------------------------------------------------


def _path(outline: Any) -> tuple[str, ...] | None:
    """Where the objects stand; None: this is no dialogue set."""
    if isinstance(outline, list):
        return () if _mostly(outline) else None
    if not isinstance(outline, dict) or not outline:
        return None
    if _mostly([outline]):
        return ()
    values = list(outline.values())
    lists = [value for value in values if isinstance(value, list) and value]
    if lists and len(lists) == len(values) and all(_mostly(value) for value in lists):
        return ("*",)
    objects = [value for value in values if isinstance(value, dict)]
    if len(objects) == len(values) and objects:
        names = [key for value in objects[:_LOOK_ROWS] for key in _LISTS if _is_log(value.get(key))]
        if names and len(names) >= 0.5 * len(objects[:_LOOK_ROWS]):
            return ("*", names[0])
    return None


def _mostly(found: list[Any]) -> bool:
    looked = found[:_LOOK_ROWS]
    if not looked or any(isinstance(row, dict) and form_of(row) is not None for row in looked):
        return False
    return sum(bool(turn_list(row)) for row in looked) >= 0.5 * len(looked)


def _is_turns(value: Any, name: str) -> bool:
    if not isinstance(value, list) or not value:
        return False
    if all(_says(turn) for turn in value[:3]):
        return True
    is_texts = len(value) > 1 and all(isinstance(turn, str) for turn in value)
    return is_texts and name in _LISTS and sum(" " in turn for turn in value) >= 0.5 * len(value)


def _is_log(value: Any) -> bool:
    """A list of turns, or of objects with a text alone: the speakers alternate."""
    return _is_turns(value, "") or (
        isinstance(value, list) and len(value) > 1 and all(isinstance(turn, dict) and _text(turn) for turn in value[:3])
    )


def _says(turn: Any) -> bool:
    if isinstance(turn, dict):
        return _speaker(turn) is not None and _text(turn) is not None
    if isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn):
        return 0 < len(turn[0]) <= 40 and " " not in turn[0].strip()
    return False


def _speaker(turn: Mapping[str, Any]) -> str | None:
    for key in SPEAKERS:
        value = turn.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
    return None


def _text(turn: Mapping[str, Any]) -> str | None:
    return next((turn[key] for key in TEXTS if isinstance(turn.get(key), str)), None)


def _id(row: Any) -> str:
    if not isinstance(row, dict):
        return ""
    return next((str(row[key]) for key in _IDS if isinstance(row.get(key), str | int) and row[key] != ""), "")


def _turn(turn: Any, place: int, thread: str, file: str, line: int) -> Turn | Entry:
    role = ""
    if isinstance(turn, str):
        speaker, text = ("assistant", turn) if place % 2 else ("user", turn)
        role = speaker
    elif isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn):
        speaker, text = turn
    elif isinstance(turn, dict) and (found := _text(turn)) is not None:
        named = _speaker(turn)
        role = "" if named is not None else "assistant" if place % 2 else "user"
        speaker, text = named if named is not None else role, found
    else:
        return not_a_turn(file, line, "no speaker or no text", f"turn {place + 1}")
    if speaker.strip().lower() in _ACTIONS:
        return not_a_turn(file, line, "an action, not said", f"turn {place + 1}")
    return Turn(speaker.strip(), text, line, thread=thread, role=role)


def _by_key(name: str, again: Rows, key: str, data: DataConfig) -> Reading:
    """Turns one by one, each with its dialogue's id as context."""

    def turns() -> Iterator[Turn | Entry]:
        thread, place = "", 0
        for row in again():
            if row.problem:
                yield unreadable(name, row.line, "invalid JSON", row.problem, row.offset)
                continue
            here = str(row.context.get("*", ""))
            place = place + 1 if here == thread else 0
            thread = here
            yield _turn(row.value, place, thread, name, row.line)

    said = f'turns in "{key}" of each dialogue'
    return conversations(Talk("dialogues", name, turns, said, threads_are_whole=True), data)
