"""Discord: channels as DiscordChatExporter writes them to JSON, and why Discord's own data package is not enough.

The form is that of the exporter's ``JsonMessageWriter``: ``guild``, ``channel`` and ``messages`` of one channel.
The package that Discord itself hands out holds the messages of one account only, without what others said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.chats.exports import dicts, first_objects, have_keys, left_out, not_such, objects, seconds, text_of
from ownchat.data.conversations import conversations
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading
from ownchat.data.talk import Talk, Turn, not_a_turn

_SAID = {"Default", "Reply", "0", "19", "20", "23"}  # numbers: kinds without a name there; 20, 23: answers to a command
_THREADS = ("GuildPublicThread", "GuildPrivateThread", "GuildNewsThread")
_MARK = re.compile(r"<(@!?)([0-9]+)>|<a?(:[A-Za-z0-9_~]+:)[0-9]+>")


def recognise_discord(file: InputFile) -> float:
    """Sure of ``guild``, ``channel`` and ``messages``, and of the package's ``ID``, ``Timestamp``, ``Contents``."""
    if file.magic:
        return 0.0
    outline = file.outline
    if isinstance(outline, dict) and isinstance(outline.get("guild"), dict) and "messages" in outline:
        return 0.98 if isinstance(outline.get("channel"), dict) else 0.0
    return 0.97 if _is_package(file) else 0.0


def read_discord(file: InputFile, data: DataConfig) -> Reading:
    """One channel. Raises :class:`~ownchat.data.files.UnreadableFile` for messages of Discord's own data package."""
    if _is_package(file):
        raise UnreadableFile(
            "Discord's data package holds only what you said yourself, without what it answers",
            where=file.name,
            fix="export the channel with DiscordChatExporter, format JSON",
        )
    if not recognise_discord(file):
        raise not_such(file, "messages of a Discord channel")
    return conversations(talk_of(file), data)


def talk_of(file: InputFile) -> Talk:
    """The channel as a talk: a direct chat is one of two people, any other channel a crowd."""
    channel: dict[str, Any] = file.outline["channel"]
    direct = text_of(channel.get("type")) == "DirectTextChat"
    thread = text_of(channel.get("id")) or file.name
    within = thread if text_of(channel.get("type")) in _THREADS else ""  # a thread is a file of its own

    def turns() -> Iterator[Turn | Entry]:
        changed: Counter[str] = Counter()
        for row in objects(file, "messages"):
            if isinstance(row, Entry):
                yield row
                continue
            item = _turn(row.value, row.line, file.name, thread, direct, changed)
            if isinstance(item, Turn):
                item.within = within
            yield item
        yield from left_out(file, changed)

    place = text_of(file.outline["guild"].get("name"))
    understood = f'Discord, {"chat" if direct else "channel"} "{text_of(channel.get("name"))}"'
    return Talk("discord", file.name, turns, understood if direct else f"{understood} of {place}", crowd=not direct)


def _is_package(file: InputFile) -> bool:
    if have_keys(first_objects(file.outline), "ID", "Timestamp", "Contents"):
        return True
    return file.sample[:60].lstrip("\ufeff").startswith("ID,Timestamp,Contents,Attachments")


def _turn(value: dict[str, Any], line: int, file: str, thread: str, direct: bool,
          changed: Counter[str]) -> Turn | Entry:  # fmt: skip
    if text_of(value.get("type")) not in _SAID:
        return not_a_turn(file, line, "system line", text_of(value.get("type")))
    author = value.get("author")
    speaker, name, bot = "", "", False
    if isinstance(author, dict):
        name = text_of(author.get("nickname")) or text_of(author.get("name"))
        speaker, bot = text_of(author.get("id")) or name, author.get("isBot") is True
    if not speaker:
        return not_a_turn(file, line, "no speaker")
    text = text_of(value.get("content"))
    if not text.strip() and bot:
        text = "\n\n".join(filter(None, map(_embedded, dicts(value.get("embeds")))))
    media = bool(value.get("attachments") or value.get("stickers"))
    if not text.strip():
        rule = "media" if media else "forwarded" if value.get("forwardedMessage") else "empty"
        return not_a_turn(file, line, rule)
    changed.update(["file left out of a message"] if media else [])
    if "<" in text:
        names = {text_of(one.get("id")): text_of(one.get("nickname")) or text_of(one.get("name"))
                 for one in dicts(value.get("mentions"))}  # fmt: skip
        text = _MARK.sub(lambda mark: mark[3] or f"@{names.get(mark[2]) or mark[2]}", text)
    reference = value.get("reference")
    return Turn(
        speaker, text, line, seconds(value.get("timestamp")), name=name, thread=thread, id=text_of(value.get("id")),
        reply_to=text_of(reference.get("messageId")) if isinstance(reference, dict) else "", answer=bot and direct,
    )  # fmt: skip


def _embedded(embed: dict[str, Any]) -> str:
    """What a bot says in a card."""
    fields = [f"{text_of(one.get('name'))}: {text_of(one.get('value'))}" for one in dicts(embed.get("fields"))]
    return "\n".join(filter(None, [text_of(embed.get("title")), text_of(embed.get("description")), *fields]))
