"""Intercom: conversations as its API and its exports give them (JSON objects, lists of them, JSON lines).

Fields as in Intercom's developer reference: ``source`` opens (``conversation_message`` before API 2.0), the parts
go on; a part of type "note" is seen by teammates only, others without a body tell what was done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.conversations import conversations
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.mail.subjects import with_subject
from ownchat.data.markup import without_markup
from ownchat.data.reading import Reading
from ownchat.data.talk import Talk, Turn, not_a_turn
from ownchat.data.tickets.fields import Cuts, moment, name_of, objects_in

_STAFF = ("admin", "bot", "team", "teammate", "operator")
_NOTES = ("note", "note_and_reopen")


def recognise_intercom(file: InputFile) -> float:
    """Conversations with Intercom's parts."""
    if file.magic or file.sample.lstrip("\ufeff \t\r\n")[:1] not in ("{", "["):
        return 0.0
    return 0.0 if _path(file.outline) is None else 0.97


def read_intercom(file: InputFile, data: DataConfig) -> Reading:
    """Each conversation as it went; teammates and bots answer. Notes and events are dropped with a rule."""
    path = _path(file.outline) or ()

    def turns() -> Iterator[Turn | Entry]:
        cuts = Cuts(file.name)
        for item in objects_in(file, *path):
            if isinstance(item, Entry):
                yield item
            else:
                yield from _conversation(item.value, item.line, file.name, cuts)
        yield from cuts.entries()

    talk = Talk("intercom", file.name, turns, understood="Intercom conversations", threads_are_whole=True)
    return conversations(talk, data)


# ----------------------------------------------------------------------------------------------------------------


def _path(outline: Any) -> tuple[str, ...] | None:
    if isinstance(outline, dict):
        for key in ("conversations", "data"):
            if isinstance(outline.get(key), list) and any(map(_is_conversation, outline[key][:20])):
                return (key,)
        return () if _is_conversation(outline) else None
    rows = outline[:20] if isinstance(outline, list) else []
    return () if any(map(_is_conversation, rows)) else None


def _is_conversation(row: Any) -> bool:
    if not isinstance(row, dict):
        return False
    parts = row.get("conversation_parts")
    opened = isinstance(row.get("source") or row.get("conversation_message"), dict)
    named = row.get("type") == "conversation"
    return (isinstance(parts, dict | list) and (opened or named)) or (named and opened)


def _conversation(row: Mapping[str, Any], line: int, file: str, cuts: Cuts) -> Iterator[Turn | Entry]:
    thread = f"conversation {name_of(row.get('id')) or f'of line {line}'}"
    opening = row.get("source") or row.get("conversation_message")
    parts = row.get("conversation_parts")
    parts = parts.get("conversation_parts") if isinstance(parts, dict) else parts
    messages: list[Any] = parts if isinstance(parts, list) else []
    if isinstance(opening, dict):
        messages = [{"part_type": "comment", "created_at": row.get("created_at"), **opening}, *messages]
    if not messages:
        yield not_a_turn(file, line, "no message", thread)
    for place, part in enumerate(messages):
        if not isinstance(part, dict):
            yield not_a_turn(file, line, "no message", thread)
            continue
        kind = str(part.get("part_type", "comment"))
        body = part.get("body")
        text = without_markup(body) if isinstance(body, str) else ""
        if kind in _NOTES:
            yield not_a_turn(file, line, "private note", thread)
        elif part.get("redacted") is True:
            yield not_a_turn(file, line, "deleted", thread)
        elif not text.strip():
            yield not_a_turn(file, line, "event" if kind != "comment" else "no text", f"{thread}: {kind}")
        else:
            author: Mapping[str, Any] = part["author"] if isinstance(part.get("author"), dict) else {}
            subject = without_markup(name_of(part.get("subject"))) if place == 0 else ""
            text = cuts.own(text)
            yield Turn(
                name_of(author, "id", "email", "name", "type") or "somebody",
                with_subject(subject, text),
                line,
                time=moment(part.get("created_at")),
                name=name_of(author, "name", "email"),
                thread=thread,
                id=name_of(part.get("id")),
                answer=author.get("type") in _STAFF,
            )
