"""Which records of the test split can be scored, and which of their messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ownchat.data.records import Record
from ownchat.evaluate.preferences import as_conversation, is_pair


def scorable(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Records that have a trained token, and a note on each sort of record that has none.

    Preferences have scores of their own (:mod:`ownchat.evaluate.preferences`). Where there is nothing else, their
    wanted replies are scored as conversations.
    """
    items: list[Record] = []
    preferences: list[Record] = []
    untrained = 0
    for item in records:
        if item["kind"] == "preference":
            preferences.append(item)
        elif (item["kind"] == "document" and item["text"]) or any(map(is_trained, item["messages"] or ())):
            items.append(item)
        else:
            untrained += 1
    notes = []
    judged = sum(not is_pair(item) for item in preferences)
    if not items and preferences:
        items = [wanted for wanted in map(as_conversation, preferences) if wanted is not None]
        notes.append(f"The loss is that of the {len(items):,} replies that were wanted: there are preferences only.")
    elif judged:
        notes.append(f"{judged:,} judged replies of the test split are not scored.")
    if untrained:
        notes.append(f"{untrained:,} records of the test split have no reply to score.")
    return items, notes


def is_trained(message: dict[str, Any]) -> bool:
    """Is this message scored? The assistant's are, unless their weight says no.

    >>> is_trained({"role": "assistant", "weight": None}), is_trained({"role": "assistant", "weight": 0})
    (True, False)
    """
    return message["role"] == "assistant" and message["weight"] != 0


def reply_bytes(item: Record) -> int:
    """UTF-8 bytes of what is scored: the text of a document, the trained messages of a conversation."""
    if item["kind"] == "document":
        return len(item["text"].encode())
    return sum(len((message["content"] or "").encode()) for message in item["messages"] if is_trained(message))
