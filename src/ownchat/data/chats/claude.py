"""Claude's data export: ``conversations.json`` with ``users.json``, ``projects.json`` and ``memories.json`` beside it.

Anthropic does not publish the form. As exports up to 2026 show it: a list of conversations with ``chat_messages``,
each of blocks (``content``); newer ones also hold edited branches, told by ``parent_message_uuid``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.chats.exports import (
    dicts,
    first_objects,
    have_keys,
    left_out,
    not_such,
    objects,
    put_aside,
    seconds,
    text_of,
)  # fmt: skip
from ownchat.data.conversations import conversations
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped
from ownchat.data.records import Record, record
from ownchat.data.talk import Talk, Turn, not_a_turn

_ROLES = {"human": "user", "user": "user", "assistant": "assistant"}
_ROOT = "00000000-0000-"  # a first message names no parent, or one of zeros
_SILENT = {"thinking": "reasoning", "redacted_thinking": "reasoning", "tool_use": "tool call",
           "tool_result": "tool output"}  # fmt: skip


def recognise_claude(file: InputFile) -> float:
    """Sure of conversations with ``chat_messages``; projects, users and memories are known by their keys."""
    if file.magic:
        return 0.0
    found = first_objects(file.outline)
    if have_keys(found, "chat_messages"):
        return 0.98
    return 0.95 if have_keys(found, "prompt_template", "docs") or _beside(found) else 0.0


def read_claude(file: InputFile, data: DataConfig) -> Reading:
    """Conversations; of ``projects.json`` its documents. Accounts and memories are put aside, row for row."""
    found = first_objects(file.outline)
    if have_keys(found, "chat_messages"):
        return conversations(talk_of(file), data)
    if have_keys(found, "prompt_template", "docs"):
        return Reading("claude", "documents of Claude projects", _documents(file))
    rule = _beside(found)
    if not rule:
        raise not_such(file, "conversations with Claude")
    return put_aside(file, "claude", rule, f"beside a Claude export: {rule}")


def talk_of(file: InputFile) -> Talk:
    """The export as a talk."""

    def turns() -> Iterator[Turn | Entry]:
        changed: Counter[str] = Counter()
        for row in objects(file):
            if isinstance(row, Entry):
                yield row
            elif isinstance(row.value.get("chat_messages"), list):
                yield from _conversation(row.value, row.line, file.name, changed)
            else:
                yield dropped(file.name, row.line, "no messages", row.offset)
        yield from left_out(file, changed)

    return Talk("claude", file.name, turns, "conversations with Claude", threads_are_whole=True)


def _beside(found: list[dict[str, Any]]) -> str:
    if have_keys(found, "uuid", "full_name", "email_address"):
        return "account data"
    return "memories" if have_keys(found, "conversations_memory") else ""


def _documents(file: InputFile) -> Iterator[Record | Entry]:
    for row in objects(file):
        if isinstance(row, Entry):
            yield row
            continue
        documents = dicts(row.value.get("docs"))
        before = (row.offset or 0) << 20  # room for the documents of each project of a line
        if not documents:
            yield dropped(file.name, row.line, "no documents", before or None)
        group = text_of(row.value.get("uuid")) or None
        for number, one in enumerate(documents, before):
            text = text_of(one.get("content"))
            if text.strip():
                yield record("document", file=file.name, format="claude", line=row.line, offset=number, text=text,
                             group=group)  # fmt: skip
            else:
                yield dropped(file.name, row.line, "empty", number)


def _conversation(value: dict[str, Any], line: int, file: str, changed: Counter[str]) -> Iterator[Turn | Entry]:
    messages = value["chat_messages"]
    thread = text_of(value.get("uuid")) or f"{file}, line {line}"
    kept = _branch(dicts(messages), value.get("current_leaf_message_uuid"))
    for number, message in enumerate(messages):
        place = f"conversation {thread}, message {number + 1}"
        if not isinstance(message, dict):
            yield not_a_turn(file, line, "not an object", place)
        elif kept is not None and message.get("uuid") not in kept:
            yield not_a_turn(file, line, "other branch", place)
        else:
            yield _turn(message, thread, line, file, place, changed)


def _branch(messages: list[dict[str, Any]], leaf: Any) -> set[Any] | None:
    """The messages up to ``leaf``, or to the last one; none if the export tells of no branches."""
    by_id = {message.get("uuid"): message for message in messages if isinstance(message.get("uuid"), str)}
    if len(by_id) < len(messages) or not messages or "parent_message_uuid" not in messages[-1]:
        return None
    if not isinstance(leaf, str) or leaf not in by_id:
        parents = {message.get("parent_message_uuid") for message in messages}
        ends = [key for key in reversed(by_id) if key not in parents] or list(by_id)
        leaf = max(ends, key=lambda key: seconds(by_id[key].get("created_at")) or 0.0)  # of equal ones the last
    path: set[Any] = set()
    while leaf in by_id and leaf not in path:
        path.add(leaf)
        leaf = by_id[leaf].get("parent_message_uuid")
        if not isinstance(leaf, str) or leaf.startswith(_ROOT):
            return path
    return None  # the way to the root is broken: better a branch too much than half of the conversation


def _turn(message: dict[str, Any], thread: str, line: int, file: str, place: str,
          changed: Counter[str]) -> Turn | Entry:  # fmt: skip
    role = _ROLES.get(text_of(message.get("sender")))
    if role is None:
        return not_a_turn(file, line, "unknown role", f"{place}: {message.get('sender')!r}")
    blocks = dicts(message.get("content"))
    said = [text for block in blocks if (text := _said(block)).strip()]
    if not blocks:  # exports until 2024
        said = [text] if (text := text_of(message.get("text"))).strip() else []
    silent = Counter(_SILENT.get(text_of(block.get("type")), "part of another kind") for block in blocks
                     if not _said(block).strip() and block.get("type") != "text")  # fmt: skip
    attached = [text for one in dicts(message.get("attachments")) if (text := _attachment(one))]
    files = len(dicts(message.get("files")) or dicts(message.get("files_v2")))
    if not said and not attached:
        rule = "media" if files else min(silent, default="empty")
        return not_a_turn(file, line, rule, place)
    for rule, count in silent.items():
        changed[f"{rule} left out of a message"] += count
    changed.update({"file left out of a message": files} if files else {})
    text = "\n\n".join(said + attached)
    when = seconds(message.get("created_at"))
    return Turn(role, text, line, when, thread=thread, id=text_of(message.get("uuid")), role=role)


def _said(block: dict[str, Any]) -> str:
    return text_of(block.get("text")) if block.get("type") in ("text", "voice_note") else ""


def _attachment(one: dict[str, Any]) -> str:
    """A text that was attached or pasted, under its name."""
    content, name = text_of(one.get("extracted_content")), text_of(one.get("file_name"))
    if not content.strip():
        return ""
    return f"{name}:\n{content}" if name.strip() else content
