"""Telegram Desktop's export as "machine-readable JSON" (``result.json``): one chat, or a whole account.

The form is described at https://core.telegram.org/import-export and by the exports of Telegram Desktop: ``messages``
of ``type`` message or service, whose ``text`` is a string or a list of strings and marked pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.chats.exports import (
    FEW,
    first_objects,
    have_keys,
    left_out,
    not_such,
    objects,
    read_talks,
    seconds,
    text_of,
)
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.json_stream import JsonRow
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, place_of
from ownchat.data.records import Record, record
from ownchat.data.talk import Talk, Turn, not_a_turn

_WHOLE_ACCOUNT = ("*", "list", "*", "messages")  # of chats and of left_chats
_ONE_CHAT = ("messages",)
_TWO = ("personal_chat", "bot_chat")
_CHANNELS = ("public_channel", "private_channel")
_LONGEST = 1_000_000  # characters of one document of posts
_MEDIA = ("photo", "file", "media_type", "sticker_emoji", "location_information", "contact_information",
          "game_title", "invoice_information", "live_location_period_seconds")  # fmt: skip


def recognise_telegram(file: InputFile) -> float:
    """Sure of messages that have ``date`` and ``text`` inside a chat with a ``type``, or of a list of such chats."""
    outline = file.outline if not file.magic else None
    if not isinstance(outline, dict):
        return 0.0
    if any(isinstance(chats, dict) and have_keys(first_objects(chats.get("list")), "type", "id")
           for chats in (outline.get("chats"), outline.get("left_chats"))):  # fmt: skip
        return 0.97
    if "personal_information" in outline and isinstance(outline.get("chats", {}), dict):
        return 0.95
    if not isinstance(outline.get("messages"), list) or "type" not in outline:
        return 0.0
    return 0.97 if have_keys(first_objects(outline["messages"]), "type", "date", "id") else 0.0


def read_telegram(file: InputFile, data: DataConfig) -> Reading:
    """Chats as they are, groups of many as crowds; what a channel posts are documents, one of each month.

    Notes to oneself, service lines, forwarded texts, polls and media without text are dropped by these rules.
    Raises :class:`~ownchat.data.files.UnreadableFile` for an export without a message.
    """
    if not recognise_telegram(file):
        raise not_such(file, "messages of Telegram")
    chats = _look(file)
    talks = _talks(file, chats)
    if not chats.posts:
        return read_talks(talks, data)
    reading = read_talks(talks, data) if talks else Reading("telegram", "", ())
    count = len(chats.posts)
    note = f"{count} channel{'s' * (count > 1)} in which one voice posts: a document of each month"
    understood = "; ".join(filter(None, [reading.understood, "Telegram, posts of channels"]))

    def items() -> Iterator[Record | Entry]:
        yield from reading.rows
        yield from _documents(file, chats, reading.entered)

    return Reading("telegram", understood, items(), notes=[*reading.notes, note], entered=reading.entered)


def talks_of(file: InputFile) -> list[Talk]:
    """One talk of the chats of few people, one of the groups of many; a kind that is not there is left out."""
    return _talks(file, _look(file))


@dataclass(frozen=True)
class _Chats:
    """What stands in an export."""

    path: tuple[str, ...]
    owner: str
    why: str
    few: bool  # there are chats of few people
    crowds: frozenset[str]
    posts: frozenset[str]  # channels of one voice: nobody answers there, and nobody has to


def _look(file: InputFile) -> _Chats:
    outline = file.outline
    path = _ONE_CHAT if "messages" in outline else _WHOLE_ACCOUNT  # long lists may stand before the chats
    owner, why = _owner(outline), "the account that was exported"
    speakers: dict[str, set[str]] = {}  # of each chat, as far as they are few
    channels: set[str] = set()
    damaged = False
    for row in objects(file, *path):
        if isinstance(row, Entry):
            damaged = True
            continue
        there = speakers.setdefault(_chat(row), set())
        if len(there) <= FEW and (speaker := _speaker(row.value)):
            there.add(speaker)
        if row.context.get("type") in _CHANNELS:
            channels.add(_chat(row))
    if not speakers:
        raise UnreadableFile("there is no message in this export", where=file.name, fix="export it with its chats")
    crowds = frozenset(chat for chat, there in speakers.items() if len(there) > FEW)
    if not owner and path is _ONE_CHAT and text_of(outline.get("type")) in _TWO:
        others = next(iter(speakers.values())) - {f"user{text_of(outline.get('id'))}"}
        owner = next(iter(others)) if len(others) == 1 else ""
        why = f'the chat is with "{text_of(outline.get("name"))}"'
    posts = frozenset(chat for chat in channels if len(speakers[chat]) == 1)
    return _Chats(path, owner, why, damaged or crowds | posts < speakers.keys(), crowds, posts)


def _talks(file: InputFile, chats: _Chats) -> list[Talk]:
    few = [_talk(file, chats, crowd=False)] if chats.few else []
    return few + ([_talk(file, chats, crowd=True)] if chats.crowds else [])


def _talk(file: InputFile, chats: _Chats, *, crowd: bool) -> Talk:
    owner, why = chats.owner, chats.why

    def turns() -> Iterator[Turn | Entry]:
        changed: Counter[str] = Counter()
        for row in objects(file, *chats.path):
            if isinstance(row, Entry):
                if not crowd:  # damage is told once
                    yield row
            elif (_chat(row) in chats.crowds) == crowd and _chat(row) not in chats.posts:
                yield _turn(row, file.name, owner, changed)
        yield from left_out(file, changed)

    understood = "Telegram, groups of many people" if crowd else "Telegram"
    return Talk("telegram", file.name, turns, understood, owner=owner, owner_why=why if owner else "", crowd=crowd)


def _documents(file: InputFile, chats: _Chats, entered: Counter[str]) -> Iterator[Record | Entry]:
    """The posts of each channel and month as one document, in their order."""
    changed: Counter[str] = Counter()
    held: list[Turn] = []
    month, size = "", 0
    for row in objects(file, *chats.path):
        if isinstance(row, Entry) or _chat(row) not in chats.posts:
            continue  # damage is told by the chats
        entered["message"] += 1
        item = _turn(row, file.name, "", changed)
        if isinstance(item, Entry):
            yield item
            continue
        here = f"{item.thread} {_month(item.time)}"
        if held and (here != month or size > _LONGEST):
            yield from _document(held, file.name)
            held, size = [], 0
        held.append(item)
        month, size = here, size + len(item.text)
    if held:
        yield from _document(held, file.name)
    yield from left_out(file, changed)


def _document(posts: list[Turn], file: str) -> Iterator[Record | Entry]:
    first = posts[0]
    text = "\n\n".join(post.text.strip() for post in posts) + "\n"
    row = record(
        "document", file=file, format="telegram", line=first.line, offset=first.offset, text=text, tags=["posts"]
    )
    yield row
    detail = f"{place_of(file, first.line, first.offset)}: {first.name}"
    yield Entry("message", f"{row['id']}.posts", "merged", "posts of a month", len(posts), (file,), detail)


def _month(time: float | None) -> str:
    return "" if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m")


def _chat(row: JsonRow) -> str:
    return text_of(row.context.get("id"))


def _owner(outline: dict[str, Any]) -> str:
    person = outline.get("personal_information")
    return _id(person.get("user_id")) if isinstance(person, dict) else ""


def _id(value: Any) -> str:
    """Exports until 2021 have a number where newer ones have "user123"."""
    return f"user{value}" if isinstance(value, int) else text_of(value)


def _speaker(value: dict[str, Any]) -> str:
    return _id(value.get("from_id")) or text_of(value.get("from"))


def _turn(row: JsonRow, file: str, owner: str, changed: Counter[str]) -> Turn | Entry:
    value, line, offset, chat = row.value, row.line, row.offset, row.context.get("type")
    if value.get("type") != "message":
        rule = "system line" if value.get("type") == "service" else "unsupported message"
        return not_a_turn(file, line, rule, text_of(value.get("action")), offset)
    if chat == "saved_messages":
        return not_a_turn(file, line, "note to oneself", offset=offset)
    if value.get("forwarded_from") or value.get("saved_from"):
        return not_a_turn(file, line, "forwarded", offset=offset)
    text = _text(value.get("text", value.get("text_entities")))
    media = any(value.get(key) for key in _MEDIA)
    if not text.strip():
        rule = "poll" if value.get("poll") else "media" if media else "empty"
        return not_a_turn(file, line, rule, offset=offset)
    speaker = _speaker(value)
    if not speaker:
        return not_a_turn(file, line, "no speaker", offset=offset)
    changed.update(["file left out of a message"] if media else [])
    when = seconds(value.get("date_unixtime"))
    return Turn(
        speaker, text, line, seconds(value.get("date")) if when is None else when,
        name=text_of(value.get("from")) or "Deleted Account", thread=text_of(row.context.get("id")) or file,
        id=text_of(value.get("id")), reply_to=text_of(value.get("reply_to_message_id")),
        answer=chat == "bot_chat" and bool(owner) and speaker != owner, offset=offset,
    )  # fmt: skip


def _text(text: Any) -> str:
    """The plain text of a message; a link behind words stands after them.

    >>> _text(["See ", {"type": "text_link", "text": "here", "href": "https://example.org/"}, "."])
    'See here (https://example.org/).'
    """
    if not isinstance(text, list):
        return text_of(text)
    parts = []
    for part in text:
        if isinstance(part, dict):
            said, link = text_of(part.get("text")), text_of(part.get("href"))
            parts.append(f"{said} ({link})" if link and link != said else said)
        else:
            parts.append(text_of(part))
    return "".join(parts)
