"""Conversations and instructions of the open training formats, one JSON object each.

- ShareGPT: ``{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", ...}], "system", "tools"}``, with the
  turns ``function_call`` and ``observation`` of tool data (the form that LLaMA-Factory's ``data/README.md`` describes),
  as pairs (``[{"human": ..., "assistant": ...}]``), and as bare texts in turn (LIMA)
- Alpaca: ``{"instruction", "input", "output", "system", "history": [[question, answer], ...]}``
- prompt and completion, where one of them is a list of messages (TRL)
- Self-Instruct: ``{"instruction", "instances": [{"input", "output"}, ...]}``

Rows with plain question and answer columns need none of this: see :mod:`ownchat.data.columns`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ownchat.data.ledger import Entry
from ownchat.data.messages import checked, messages_of, tools_of
from ownchat.data.reading import dropped
from ownchat.data.records import Record, message
from ownchat.errors import DataError, nearest

LISTS = ("conversations", "conversation", "messages", "items", "dialogue", "dialog", "turns")
ROLES = {
    "human": "user", "user": "user", "prompter": "user", "customer": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "bot": "assistant", "chatbot": "assistant", "model": "assistant", "claude": "assistant", "ai": "assistant",
    "function_call": "call", "tool_call": "call", "function-call": "call",
    "observation": "tool", "tool": "tool", "tool_response": "tool", "function_response": "tool", "function": "tool",
    "function-response": "tool", "ipython": "tool",
    "system": "system", "developer": "system",
}  # fmt: skip
_TEXTS = ("value", "content", "text")
_PAIRS = (("human", "assistant"), ("user", "assistant"), ("input", "output"), ("prompt", "response"))
_QUESTIONS = ("instruction", "prompt", "question", "query")
_ANSWERS = ("output", "response", "completion", "answer")

Items = Iterator[Record | Entry]


def is_sharegpt(row: Mapping[str, Any]) -> bool:
    """Whether an object holds a list of turns whose speakers are people and models.

    >>> is_sharegpt({"conversations": [{"from": "human", "value": "Hi"}]}), is_sharegpt({"items": [{"id": 1}]})
    (True, False)
    """
    return bool(_list_of(row)) or _is_empty(row)


def read_sharegpt(
    row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Items:
    """The conversation of one object. Raises :class:`~ownchat.errors.DataError` for a turn without speaker or text."""
    if _is_empty(row):
        yield dropped(file, line, "empty", offset)
        return
    name = _list_of(row)
    messages = _with_system(row, turns_of(row[name], f"line {line}: {name}", file))
    yield checked(messages, tools_of(row, file, line), group, file=file, format=format, line=line, offset=offset)


def turns_of(found: Any, where: str, file: str) -> list[dict[str, Any]]:
    """Turns in any of the shapes above, or OpenAI's messages, as rows of the record's schema.

    >>> turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    >>> [turn["role"] for turn in turns_of(turns, "line 1", "a.json")]
    ['user', 'assistant']
    """
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list):
        raise DataError(f"{where} must be a list of turns", where=file, fix='write [{"from": ..., "value": ...}]')
    if found and all(isinstance(turn, str) for turn in found):
        return [message("assistant" if number % 2 else "user", turn) for number, turn in enumerate(found)]
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(found):
        place = f"{where}[{number}]"
        if not isinstance(turn, dict):
            raise DataError(f"{place} must be an object", where=file, fix='write {"from": ..., "value": ...}')
        if "role" in turn and "content" in turn and turn["role"] not in ("function_call", "observation"):
            messages += messages_of([turn], where, file)
        elif "from" in turn or "role" in turn:
            messages.append(_turn(turn, place, file))
        else:
            messages += _pair(turn, place, file)
    return messages


def is_alpaca(row: Mapping[str, Any]) -> bool:
    """Whether an object is an instruction with the turns before it; those without are rows of a table."""
    return isinstance(row.get("history"), list) and bool(_first(row, _QUESTIONS)) and bool(_first(row, _ANSWERS))


def read_alpaca(
    row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Items:
    """The conversation of one object: system message, history, instruction with its input, output."""
    messages = []
    for number, pair in enumerate(row["history"]):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            what = f"line {line}: history[{number}] must be a list of question and answer"
            raise DataError(what, where=file, fix='write "history": [["question", "answer"], ...]')
        messages += [message("user", pair[0]), message("assistant", pair[1])]
    question, answer = prompt_of(row), text_of(row, _first(row, _ANSWERS), line, file)
    if not question.strip() or not answer.strip():
        yield dropped(
            file, line, "no question" if answer.strip() else "no answer" if question.strip() else "empty", offset
        )
        return
    messages += [message("user", question), message("assistant", answer)]
    yield checked(
        _with_system(row, messages),
        tools_of(row, file, line),
        group,
        file=file,
        format=format,
        line=line,
        offset=offset,
    )


def is_pair(row: Mapping[str, Any]) -> bool:
    """Whether prompt and completion are given as messages (as texts they are two columns of a table)."""
    parts = [row.get("prompt"), row.get("completion")]
    return None not in parts and any(isinstance(part, list) for part in parts)


def read_pair(
    row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Items:
    """The conversation of one object."""
    messages = [
        *side(row["prompt"], "user", f"line {line}: prompt", file),
        *side(row["completion"], "assistant", f"line {line}: completion", file),
    ]
    yield checked(
        _with_system(row, messages),
        tools_of(row, file, line),
        group,
        file=file,
        format=format,
        line=line,
        offset=offset,
    )


def is_self_instruct(row: Mapping[str, Any]) -> bool:
    """Whether an object is an instruction with several inputs and outputs."""
    found = row.get("instances")
    return isinstance(row.get("instruction"), str) and isinstance(found, list) and bool(found) and (
        all(isinstance(one, dict) and "output" in one for one in found)
    )  # fmt: skip


def read_self_instruct(
    row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Items:
    """A conversation for each instance: each is a row of its own, told apart by its place in the object."""
    before = (offset or 0) << 20  # room for the instances of each object of a line
    for number, one in enumerate(row["instances"]):
        question = prompt_of({"instruction": row["instruction"], "input": one.get("input")})
        answer = text_of(one, "output", line, file)
        messages = [message("user", question), message("assistant", answer)] if answer.strip() else []
        yield checked(messages, None, group, file=file, format=format, line=line, offset=before + number or None)


# ----------------------------------------------------------------------------------------- parts that others use too


def side(value: Any, role: str, where: str, file: str) -> list[dict[str, Any]]:
    """One side of an exchange: a text that ``role`` says, one turn, or a list of turns."""
    if isinstance(value, str):
        return [message(role, value)]
    if isinstance(value, dict) and "role" not in value and "from" not in value:
        text = next((value[name] for name in _TEXTS if isinstance(value.get(name), str)), None)
        if text is not None:
            return [message(role, text)]
    return turns_of(value, where, file)


def prompt_of(row: Mapping[str, Any]) -> str:
    """The question of an instruction row: instruction and input, which may be missing.

    >>> prompt_of({"instruction": "Add.", "input": "2, 3"})
    'Add.\\n\\n2, 3'
    """
    question = row.get(_first(row, _QUESTIONS) or "", "")
    parts = [part for part in (question, row.get("input")) if isinstance(part, str) and part.strip()]
    return "\n\n".join(parts)


def text_of(row: Mapping[str, Any], name: str, line: int, file: str) -> str:
    """A text of an object; nothing is empty. Raises :class:`~ownchat.errors.DataError` for what is no text."""
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, list | dict):
        raise DataError(f"line {line}: {name} must be text", where=file, fix="write it as text")
    return str(value)


def _list_of(row: Mapping[str, Any]) -> str:
    """The key whose value is a list of turns."""
    for name in LISTS:
        found = row.get(name)
        if isinstance(found, list) and found and _is_turn(found[0]):
            return name
    found = row.get("conversations") or row.get("conversation")
    if isinstance(found, list) and found and all(isinstance(text, str) for text in found):
        return "conversations" if row.get("conversations") else "conversation"
    return ""


def _is_empty(row: Mapping[str, Any]) -> bool:
    return row.get("conversations") == [] or row.get("conversation") == []


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, dict):
        return False
    speaker = turn.get("from", turn.get("role"))
    if isinstance(speaker, str):
        return speaker.strip().lower() in ROLES and any(name in turn for name in _TEXTS)
    return any(isinstance(turn.get(a), str) and isinstance(turn.get(b), str) for a, b in _PAIRS)


def _turn(turn: Mapping[str, Any], place: str, file: str) -> dict[str, Any]:
    speaker = str(turn.get("from", turn.get("role"))).strip().lower()
    role = ROLES.get(speaker)
    if role is None:
        fix = nearest(speaker, ROLES) or f"speakers are {', '.join(ROLES)}"
        raise DataError(f"{place}: unknown speaker {json.dumps(speaker)}", where=file, fix=fix)
    name = next((name for name in _TEXTS if name in turn), "")
    text = turn.get(name)
    if text is None and name:
        text = ""
    if role in ("call", "tool") and isinstance(text, dict | list):
        text = json.dumps(text, ensure_ascii=False)
    if not isinstance(text, str):
        raise DataError(f"{place} has no text", where=file, fix='write {"from": ..., "value": ...}')
    weight = turn.get("weight")
    fields = {"weight": int(weight)} if weight in (0, 1) and weight is not None else {}
    if role == "call":
        calls = _calls(text)
        if calls:
            return message("assistant", "", tool_calls=json.dumps(calls, ensure_ascii=False), **fields)
        return message("assistant", text, **fields)  # not a call after all: its words are kept
    return message(role, text, **fields)


def _calls(text: str) -> list[dict[str, Any]]:
    """The calls that a text of JSON makes, in OpenAI's form, where arguments are text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return []
    return [
        {"type": "function", "function": {"name": call["name"], "arguments": _arguments(call.get("arguments"))}}
        for call in calls
    ]


def _arguments(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps({} if value is None else value, ensure_ascii=False)


def _pair(turn: Mapping[str, Any], place: str, file: str) -> list[dict[str, Any]]:
    for a, b in _PAIRS:
        if isinstance(turn.get(a), str) and isinstance(turn.get(b), str):
            system = turn.get("system")
            before = [message("system", system)] if isinstance(system, str) and system.strip() else []
            return [*before, message("user", turn[a]), message("assistant", turn[b])]
    raise DataError(f"{place} names no speaker", where=file, fix='write {"from": "human", "value": ...}')


def _with_system(row: Mapping[str, Any], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for name in ("system", "system_prompt"):
        text = row.get(name)
        if isinstance(text, str) and text.strip() and not (messages and messages[0]["role"] == "system"):
            return [message("system", text), *messages]
    return messages


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if isinstance(row.get(name), str)), "")
