"""Conversations in the OpenAI form: ``{"messages": [{"role": ..., "content": ...}, ...], "tools": [...]}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from ownchat.data.ledger import Entry
from ownchat.data.reading import dropped
from ownchat.data.records import Record, message, record
from ownchat.errors import DataError, nearest

_ROLES = {
    "system": "system",
    "developer": "system",  # OpenAI's newer name
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",  # OpenAI's older name
    "human": "user",
    "model": "assistant",  # Gemini's name
    "gpt": "assistant",
    "ipython": "tool",  # Llama's name
}
_SAME = frozenset(("system", "user", "assistant", "tool"))  # as a record calls them
_ROLE, _CONTENT = itemgetter("role"), itemgetter("content")
_TEXT_PARTS = ("text", "input_text", "output_text")  # the last two in the Responses API


def is_conversation(row: Mapping[str, Any]) -> bool:
    """Whether a JSON object is meant as a conversation."""
    return "messages" in row


def conversation(
    row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Record | Entry:
    """The record of one object, or the reason why it trains nothing.

    Raises :class:`~ownchat.errors.DataError` with file, line and field for what is not of this form.

    >>> row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    >>> conversation(row, "", file="a.jsonl", format="jsonl", line=1)["messages"][1]["content"]
    'Hello'
    """
    messages = messages_of(row["messages"], f"line {line}: messages", file)
    return checked(messages, tools_of(row, file, line), group, file=file, format=format, line=line, offset=offset)


def messages_of(found: Any, where: str, file: str) -> list[dict[str, Any]]:
    """A list of OpenAI messages as rows of the record's schema.

    Raises :class:`~ownchat.errors.DataError` with the place of what is not of this form.
    """
    if not isinstance(found, list):
        raise _wrong(file, where, f"must be a list, not {_kind(found)}", 'write "messages": [{"role": ..., ...}]')
    if _only_texts(found):
        return found
    messages = []
    for number, item in enumerate(found):
        messages.append(item if _only_texts([item]) else _message(item, f"{where}[{number}]", file))
    return messages


def _only_texts(found: list[Any]) -> bool:
    """Whether these are messages of nothing but a role and a text, as nearly all are. Without a loop: it is hot."""
    try:
        return (
            set(map(type, found)) == {dict}
            and set(map(len, found)) == {2}
            and _SAME.issuperset(map(_ROLE, found))
            and set(map(type, map(_CONTENT, found))) == {str}
        )
    except (KeyError, TypeError):  # another key; a role that is a list
        return False


def checked(
    messages: list[dict[str, Any]], tools: str | None, group: str, *, file: str, format: str, line: int,
    offset: int | None = None, **fields: Any,
) -> Record | Entry:  # fmt: skip
    """The record of a conversation, or the reason why it trains nothing."""
    if not messages:
        return dropped(file, line, "empty", offset)
    spoken = trained = False
    for item in messages:
        if item["role"] == "assistant":
            spoken = spoken or bool(item.get("tool_calls") or item["content"].strip())
            trained = trained or item.get("weight") != 0
            if spoken and trained:
                break
    if not spoken:
        return dropped(file, line, "no assistant turn", offset)
    if not trained:
        return dropped(file, line, "no trained turn", offset)
    return record(
        "conversation", file=file, format=format, line=line, offset=offset, messages=messages, tools=tools,
        group=group or None, **fields,
    )  # fmt: skip


def _message(item: Any, where: str, file: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise _wrong(file, where, f"must be an object, not {_kind(item)}", 'write {"role": ..., "content": ...}')
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        known = _ROLES.get(role.strip().lower()) if isinstance(role, str) else None
        if known is None:
            fix = nearest(str(role), _ROLES) or f"roles are {', '.join(_ROLES)}"
            raise _wrong(file, where, f"unknown role {json.dumps(role)}" if "role" in item else "has no role", fix)
        role = known
    calls = item.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise _wrong(file, f"{where}.tool_calls", f"must be a list, not {_kind(calls)}", "see OpenAI's chat format")
    if not calls and item.get("function_call"):
        calls = [{"type": "function", "function": item["function_call"]}]
    weight = item.get("weight")
    if weight not in (None, 0, 1):
        raise _wrong(file, f"{where}.weight", f"must be 0 or 1, not {json.dumps(weight)}", "1 trains the message")
    fields = {name: _optional(item.get(name), f"{where}.{name}", file) for name in ("name", "tool_call_id", "time")}
    content = item.get("content")
    if content is None and isinstance(item.get("refusal"), str):  # OpenAI's answers that decline
        content = item["refusal"]
    return message(
        _ROLES[role],
        _text(content, f"{where}.content", file),
        tool_calls=_json(calls) if calls else None,
        weight=None if weight is None else int(weight),
        **fields,
    )


def _text(content: Any, where: str, file: str) -> str:
    """The text of a message: a string, or parts of type text; none (beside tool calls) is empty."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(file, where, f"must be text, not {_kind(content)}", "put it in quotation marks")
    texts = []
    for number, part in enumerate(content):
        if isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, dict) and isinstance(part.get("refusal"), str):
            texts.append(part["refusal"])
        elif isinstance(part, str):
            texts.append(part)
        else:
            kind = f'of type "{part["type"]}"' if isinstance(part, dict) and "type" in part else _kind(part)
            raise _wrong(file, f"{where}[{number}]", f"a part {kind} is not text", "remove it, or the conversation")
    return "\n".join(texts)


def tools_of(row: Mapping[str, Any], file: str, line: int) -> str | None:
    """The tools of an object as JSON text: OpenAI's list, its older ``functions``, or JSON text of either."""
    tools = row.get("tools")
    if not tools and isinstance(row.get("functions"), list):
        tools = [{"type": "function", "function": function} for function in row["functions"]]
    if isinstance(tools, str) and tools.strip():  # some exports hold the list as JSON text
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise _wrong(file, f"line {line}: tools", f"is not JSON: {error}", "see OpenAI's chat format") from error
    if not tools:
        return None
    if not isinstance(tools, list):
        raise _wrong(file, f"line {line}: tools", f"must be a list, not {_kind(tools)}", "see OpenAI's chat format")
    bare = [isinstance(tool, dict) and "name" in tool and "function" not in tool for tool in tools]
    if any(bare):  # a function without its wrapping
        pairs = zip(tools, bare, strict=True)
        tools = [{"type": "function", "function": tool} if alone else tool for tool, alone in pairs]
    return _json(tools)


def _optional(value: Any, where: str, file: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise _wrong(file, where, f"must be text, not {_kind(value)}", "put it in quotation marks")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _wrong(file: str, where: str, what: str, fix: str) -> DataError:
    return DataError(f"{where} {what}", where=file, fix=fix)


def _kind(value: Any) -> str:
    """What a JSON value is, in words.

    >>> _kind({}), _kind(None)
    ('an object', 'null')
    """
    if value is None:
        return "null"
    kinds = ((bool, "a truth value"), (str, "text"), (int | float, "a number"), (list, "a list"), (dict, "an object"))
    return next(name for kind, name in kinds if isinstance(value, kind))
