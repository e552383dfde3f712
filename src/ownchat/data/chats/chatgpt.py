"""ChatGPT's data export: ``conversations.json``, newer ones in parts (``conversations-000.json``, ...).

OpenAI does not publish the form. As exports up to 2026 show it: a list of conversations, each a tree of messages
(``mapping``) in which ``current_node`` is the end of the branch that the person kept. Edits and regenerated answers
are other branches.
"""

from __future__ import annotations

import json
import re
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
from ownchat.data.talk import Talk, Turn, not_a_turn

_ROLES = ("user", "assistant", "system", "tool")
_NOT_SAID = {  # content that nobody said in the conversation
    "thoughts": "reasoning",
    "reasoning_recap": "reasoning",
    "user_editable_context": "custom instructions",
    "model_editable_context": "memory",
    "execution_output": "tool output",
    "tether_browsing_display": "tool output",
    "tether_browsing_code": "tool output",
    "tether_quote": "quoted page",
    "sonic_webpage": "quoted page",
    "system_error": "error message",
}
_BESIDE = {  # name of a file in the export: what it holds
    "user": "account data",
    "user_settings": "account data",
    "message_feedback": "ratings without messages",
    "shared_conversations": "links to conversations",
    "model_comparisons": "compared answers",
    "group_chats": "account data",
    "shopping": "account data",
    "sora": "account data",
}
_CITATION = re.compile("\ue200([a-z_]*)(?:\ue202)?([^\ue201]*)\ue201|[\ue200-\ue2ff]|【[0-9]+(?::[0-9]+)?†[^】]*】")
_ENDS = ".,;:!?)]}…"  # also the empty text, at the end
_CITATIONS = re.compile(rf"([ \t]*)((?:{_CITATION.pattern})+)")  # with the space before them


def recognise_chatgpt(file: InputFile) -> float:
    """Sure of conversations that hold a ``mapping``; the files beside them are known by their keys or names."""
    if file.magic:
        return 0.0
    if _conversations_path(file.outline) is not None:
        return 0.98
    return 0.95 if _beside(file) else 0.0


def read_chatgpt(file: InputFile, data: DataConfig) -> Reading:
    """Each conversation on the branch that was kept. Other files of the export are put aside, row for row.

    Tool calls and their output, reasoning, hidden messages and other branches are dropped by rules of these names.
    """
    path = _conversations_path(file.outline)
    if path is None:
        rule = _beside(file)
        if not rule:
            raise not_such(file, "conversations of ChatGPT")
        if not isinstance(file.outline, dict | list):  # chat.html
            return Reading("chatgpt", f"beside a ChatGPT export: {rule}", [dropped(file.name, 1, rule)])
        return put_aside(file, "chatgpt", rule, f"beside a ChatGPT export: {rule}")
    return conversations(talk_of(file, path), data)


def talk_of(file: InputFile, path: tuple[str, ...] = ()) -> Talk:
    """The export as a talk; ``path`` leads to the list of conversations."""

    def turns() -> Iterator[Turn | Entry]:
        changed: Counter[str] = Counter()
        for row in objects(file, *path):
            if isinstance(row, Entry):
                yield row
            elif isinstance(row.value.get("mapping"), dict):
                yield from _conversation(row.value, row.line, file.name, changed)
            else:
                yield dropped(file.name, row.line, "no messages", row.offset)
        yield from left_out(file, changed)

    understood = "conversations with ChatGPT, on the branch that was kept"
    return Talk("chatgpt", file.name, turns, understood, threads_are_whole=True)


def _conversations_path(outline: Any) -> tuple[str, ...] | None:
    if isinstance(outline, dict) and have_keys(first_objects(outline.get("conversations")), "mapping"):
        return ("conversations",)
    return () if any(isinstance(item.get("mapping"), dict) for item in first_objects(outline)) else None


def _beside(file: InputFile) -> str:
    """What a file beside the conversations holds; empty for any other file."""
    name = file.name.rpartition("/")[2].lower()
    if name.endswith((".html", ".htm")):
        return "the same as conversations.json" if "var jsonData" in file.sample else ""
    found = first_objects(file.outline)
    if have_keys(found, "chatgpt_plus_user"):
        return "account data"
    if have_keys(found, "conversation_id", "rating") and not have_keys(found, "messages"):
        return "ratings without messages"
    if have_keys(found, "conversation_id", "is_anonymous"):
        return "links to conversations"
    stem = name.removesuffix(".json")
    known = stem in _BESIDE and stem not in ("user", "shopping", "sora")  # those names are anybody's
    return _BESIDE[stem] if known and file.outline is not None and name.endswith(".json") else ""


def _conversation(value: dict[str, Any], line: int, file: str, changed: Counter[str]) -> Iterator[Turn | Entry]:
    """A turn or a fate for every message of the tree: first the branch that was kept, then the others."""
    nodes = {key: node for key, node in value["mapping"].items() if isinstance(node, dict) and node.get("message")}
    thread = text_of(value.get("conversation_id")) or text_of(value.get("id")) or f"{file}, line {line}"
    kept = _branch(value["mapping"], value.get("current_node"), nodes)
    for key in kept:
        yield _turn(nodes[key]["message"], key, thread, line, file, changed)
    on_branch = set(kept)
    for key in nodes:
        if key not in on_branch:
            yield not_a_turn(file, line, "other branch", _place(thread, key))


def _branch(mapping: dict[str, Any], current: Any, nodes: dict[str, Any]) -> list[str]:
    """Keys of the messages from the root to ``current``; without that node, the branch of the newest message: of
    those equally new the longest, of those equally long the last."""
    if isinstance(current, str) and isinstance(mapping.get(current), dict):
        return _path(mapping, current, nodes)
    parents = {node.get("parent") for node in mapping.values() if isinstance(node, dict)}
    ends = [key for key in nodes if key not in parents] or list(nodes)
    branches = [_path(mapping, key, nodes) for key in reversed(ends)]  # of equal ones max takes the first
    newest = lambda path: max((_time(nodes[key]["message"]) or 0.0 for key in path), default=0.0)  # noqa: E731
    return max(branches, key=lambda path: (newest(path), len(path)), default=[])


def _path(mapping: dict[str, Any], current: Any, nodes: dict[str, Any]) -> list[str]:
    """Keys of the messages from the root to a node."""
    path: list[str] = []
    seen: set[str] = set()
    while isinstance(current, str) and current not in seen and isinstance(mapping.get(current), dict):
        seen.add(current)  # a damaged tree may be a ring
        if current in nodes:
            path.append(current)
        current = mapping[current].get("parent")
    return path[::-1]


def _turn(message: Any, key: str, thread: str, line: int, file: str, changed: Counter[str]) -> Turn | Entry:
    place = _place(thread, key)
    if not isinstance(message, dict) or not isinstance(message.get("content"), dict):
        return not_a_turn(file, line, "empty", place)
    content, author, metadata = message["content"], message.get("author"), message.get("metadata")
    role = author.get("role") if isinstance(author, dict) else None
    kind = text_of(content.get("content_type"))
    if kind in _NOT_SAID:
        return not_a_turn(file, line, _NOT_SAID[kind], place)
    if isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation"):
        return not_a_turn(file, line, "hidden", place)
    if role == "tool":
        return not_a_turn(file, line, "tool output", place)
    if message.get("recipient") not in (None, "", "all"):
        return not_a_turn(file, line, "tool call", place)
    if role not in _ROLES:
        return not_a_turn(file, line, "unknown role", f"{place}: {role!r}")
    text, media = _text(content, kind)
    if not text.strip():
        rule = "media" if media else "hidden" if role == "system" else "empty"
        return not_a_turn(file, line, rule, place)
    if message.get("weight") == 0:
        return not_a_turn(file, line, "hidden", place)
    if media:
        changed["image or sound left out of a message"] += 1
    plain = _CITATIONS.sub(_without, text) if "\ue200" in text or "【" in text else text
    if plain != text:
        changed["marks of citations taken out"] += 1
    if not plain.strip():
        return not_a_turn(file, line, "empty", place)
    return Turn(str(role), plain, line, _time(message), thread=thread, id=key, role=str(role))


def _text(content: dict[str, Any], kind: str) -> tuple[str, int]:
    """What is said in a message, and how many of its parts are no text."""
    if kind == "code":
        language = text_of(content.get("language"))
        language = "" if language == "unknown" else language
        code = text_of(content.get("text"))
        return (f"```{language}\n{code}\n```" if code.strip() else ""), 0
    parts = content.get("parts")
    if not isinstance(parts, list):
        return text_of(content.get("text")), 0
    said = [part for part in parts if isinstance(part, str)]
    others = dicts(parts)
    if others:  # in their order: a transcript of speech is an object with a text
        said = [part if isinstance(part, str) else text_of(part.get("text")) for part in parts
                if isinstance(part, str | dict)]  # fmt: skip
    media = sum(not text_of(part.get("text")) for part in others)
    return "\n".join(part for part in said if part), media


def _without(marks: re.Match[str]) -> str:
    """What citations leave behind: no space before a mark of punctuation, at an end, or beside another one."""
    words = _CITATION.sub(_cited, marks[2])
    after = marks.string[marks.end() : marks.end() + 1]
    return marks[1] + words if words or not (after.isspace() or after in _ENDS) else ""


def _cited(mark: re.Match[str]) -> str:
    """The words that a mark stands for: an entity has a name, a citation has none."""
    if mark[1] != "entity":
        return ""
    try:
        named = json.loads(mark[2])
    except (ValueError, RecursionError):
        return ""
    return text_of(named[1]) if isinstance(named, list) and len(named) > 1 else ""


def _time(message: Any) -> float | None:
    return seconds(message.get("create_time")) if isinstance(message, dict) else None


def _place(thread: str, key: str) -> str:
    return f"conversation {thread}, message {key}"
