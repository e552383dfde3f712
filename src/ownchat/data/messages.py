"""Conversations in the OpenAI form: ``{"messages": [{"role": ..., "content": ...}, ...], "tools": [...]}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
}


def is_conversation(row: Mapping[str, Any]) -> bool:
    """Whether a JSON object is meant as a conversation."""
    return "messages" in row


def conversation(row: Mapping[str, Any], group: str, *, file: str, format: str, line: int) -> Record | Entry:
    """The record of one object, or the reason why it trains nothing.

    Raises :class:`~ownchat.errors.DataError` with file, line and field for what is not of this form.

    >>> row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    >>> conversation(row, "", file="a.jsonl", format="jsonl", line=1)["messages"][1]["content"]
    'Hello'
    """
    found = row["messages"]
    where = f"line {line}: messages"
    if not isinstance(found, list):
        raise _wrong(file, where, f"must be a list, not {_kind(found)}", 'write "messages": [{"role": ..., ...}]')
    messages = [_message(item, f"{where}[{number}]", file) for number, item in enumerate(found)]
    if not messages:
        return dropped(file, line, "empty")
    replies = [item for item in messages if item["role"] == "assistant"]
    if not any(item["content"].strip() or item["tool_calls"] for item in replies):
        return dropped(file, line, "no assistant turn")
    if all(item["weight"] == 0 for item in replies):
        return dropped(file, line, "no trained turn")
    return record(
        "conversation", file=file, format=format, line=line, messages=messages, tools=_tools(row, file, line),
        group=group or None,
    )  # fmt: skip


def _message(item: Any, where: str, file: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise _wrong(file, where, f"must be an object, not {_kind(item)}", 'write {"role": ..., "content": ...}')
    role = item.get("role")
    if role not in _ROLES:
        fix = nearest(str(role), _ROLES) or f"roles are {', '.join(_ROLES)}"
        raise _wrong(file, where, f"unknown role {json.dumps(role)}" if "role" in item else "has no role", fix)
    calls = item.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise _wrong(file, f"{where}.tool_calls", f"must be a list, not {_kind(calls)}", "see OpenAI's chat format")
    if not calls and item.get("function_call"):
        calls = [{"type": "function", "function": item["function_call"]}]
    weight = item.get("weight")
    if weight not in (None, 0, 1):
        raise _wrong(file, f"{where}.weight", f"must be 0 or 1, not {json.dumps(weight)}", "1 trains the message")
    fields = {name: _optional(item.get(name), f"{where}.{name}", file) for name in ("name", "tool_call_id", "time")}
    return message(
        _ROLES[role],
        _text(item.get("content"), f"{where}.content", file),
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
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, str):
            texts.append(part)
        else:
            kind = f'of type "{part["type"]}"' if isinstance(part, dict) and "type" in part else _kind(part)
            raise _wrong(file, f"{where}[{number}]", f"a part {kind} is not text", "remove it, or the conversation")
    return "\n".join(texts)


def _tools(row: Mapping[str, Any], file: str, line: int) -> str | None:
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
