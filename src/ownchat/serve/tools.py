"""Tools: how a model is told of them, and calls found in what it answers. Nothing is ever called here.

A chat template that knows tools shows them itself. For other models they are described in the system message, in the
form of Hermes, Qwen and SmolLM2, which is also the form that is looked for in answers:
``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``. A call that is demanded (``tool_choice``) is held to by a
JSON schema, so that any model can make it where the engine keeps schemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ownchat.errors import UserError

OPEN, CLOSE = "<tool_call>", "</tool_call>"
LONGEST_CALL = 100_000  # characters between the marks; what is longer is text

_KNOWS = re.compile(r"\btools\b")

Message = dict[str, Any]
Tool = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A call that the model wants made; ``arguments`` is JSON text, or what the model wrote in its place."""

    name: str
    arguments: str


def knows_tools(template: str) -> bool:
    """Whether a chat template shows tools by itself."""
    return _KNOWS.search(template) is not None


def described(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """The messages for a template that knows no tools: they stand in the system message, calls in their turns' text."""
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    told = (
        f"You can use these functions:\n<tools>\n{lines}\n</tools>\n"
        f'To use one, answer with {OPEN}{{"name": "...", "arguments": {{...}}}}{CLOSE} and nothing else. '
        "The result comes in the next message."
    )
    written = [_with_calls_as_text(message) for message in messages] if tools else list(messages)
    if not tools:
        return written
    if written and written[0]["role"] == "system":
        return [{**written[0], "content": f"{written[0]['content']}\n\n{told}"}, *written[1:]]
    return [{"role": "system", "content": told}, *written]


def _with_calls_as_text(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    texts = [f"{OPEN}{json.dumps(call['function'], ensure_ascii=False)}{CLOSE}" for call in calls]
    text = "\n".join([*([message["content"]] if message["content"] else []), *texts])
    return {key: value for key, value in message.items() if key != "tool_calls"} | {"content": text}


def forced_schema(tools: Sequence[Tool], name: str | None) -> dict[str, Any]:
    """What an answer must look like that is a call: of the function ``name`` its arguments, else name and arguments."""
    if name is not None:
        function = next(tool["function"] for tool in tools if tool["function"]["name"] == name)
        return _parameters(function)
    definitions: dict[str, Any] = {}
    forms = []
    for number, tool in enumerate(tools):
        parameters = dict(_parameters(tool["function"]))
        for word in ("$defs", "definitions"):  # references start at the root, where these are no longer
            own = parameters.pop(word, {})
            if not isinstance(own, dict):
                raise UserError(f"{word} is an object", where=f"parameters of {tool['function']['name']}")
            for key, value in own.items():
                definitions[f"{number}_{key}"] = _moved(value, number)
        forms.append({
            "type": "object",
            "properties": {"name": {"const": tool["function"]["name"]}, "arguments": _moved(parameters, number)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        })  # fmt: skip
    schema: dict[str, Any] = dict(forms[0]) if len(forms) == 1 else {"anyOf": forms}
    return {**schema, "$defs": definitions} if definitions else schema


def _parameters(function: dict[str, Any]) -> dict[str, Any]:
    return function.get("parameters") or {"type": "object", "properties": {}, "additionalProperties": False}


def _moved(value: Any, number: int) -> Any:
    """A part of a schema whose references go to the definitions of tool ``number``."""
    if isinstance(value, list):
        return [_moved(item, number) for item in value]
    if not isinstance(value, dict):
        return value
    moved = {key: _moved(item, number) for key, item in value.items()}
    if isinstance(moved.get("$ref"), str):
        moved["$ref"] = re.sub(r"^#/(?:\$defs|definitions)/", f"#/$defs/{number}_", moved["$ref"])
    return moved


def forced_calls(text: str, name: str | None) -> list[Call]:
    """The call of an answer that had to be one; none where it was cut before its end."""
    if name is not None:
        return [Call(name, text.strip())]
    return _calls(text, None) or []


class CallFinder:
    """Text and calls of an answer as it comes; calls of ``names`` only, other texts in the marks are text.

    White space around calls belongs to nobody and is dropped.

    >>> finder = CallFinder({"add"})
    >>> finder.push('Well.\\n<tool_'), finder.push('call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
    (['Well.'], [Call(name='add', arguments='{"a": 1}')])
    """

    def __init__(self, names: Iterable[str], *, parallel: bool = True) -> None:
        self._names, self._parallel = frozenset(names), parallel
        self._held = ""
        self.num_calls = 0

    def push(self, text: str) -> list[str | Call]:
        """What is certain now."""
        self._held += text
        return self._found(finished=False)

    def finish(self) -> list[str | Call]:
        """What was withheld; a call without its closing mark counts, since many models end their turn before it."""
        return self._found(finished=True)

    def _found(self, *, finished: bool) -> list[str | Call]:
        found: list[str | Call] = []
        while True:
            before, opened, rest = self._held.partition(OPEN)
            if not opened:
                break
            inside, closed, after = rest.partition(CLOSE)
            if not closed and not finished and len(inside) < LONGEST_CALL:
                found += self._text(before, beside=True)
                self._held = opened + rest  # text before it has gone out
                return found
            calls = _calls(inside, self._names) if len(inside) < LONGEST_CALL else None
            if calls is None:
                found += self._text(before + opened + inside + closed, beside=False)
            else:
                found += self._text(before, beside=True)
                kept = calls if self._parallel else calls[: max(0, 1 - self.num_calls)]
                self.num_calls += len(kept)
                found += kept
                after = after.lstrip()
            self._held = after
        certain = len(self._held) if finished else _certain(self._held)
        text, self._held = self._held[:certain], self._held[certain:]
        found += self._text(text, beside=finished and self.num_calls > 0)
        return found

    def _text(self, text: str, *, beside: bool) -> list[str | Call]:
        text = text.rstrip() if beside else text
        if self.num_calls and not text.strip():
            return []
        return [text] if text else []


def _certain(text: str) -> int:
    """How much of a text can be no beginning of the opening mark, nor the white space before one."""
    for length in range(min(len(text), len(OPEN) - 1), 0, -1):
        if text.endswith(OPEN[:length]):
            return len(text[:-length].rstrip())
    return len(text.rstrip())


def _calls(inside: str, names: frozenset[str] | None) -> list[Call] | None:
    """The calls that a JSON text holds: an object, or a list of them (SmolLM2's form); none for anything else."""
    try:
        value = json.loads(inside)
    except (ValueError, RecursionError):
        return None
    calls = []
    for item in value if isinstance(value, list) else [value]:
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or (names is not None and name not in names):
            return None
        arguments = item.get("arguments", item.get("parameters", {}))
        calls.append(Call(name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)))
    return calls or None
