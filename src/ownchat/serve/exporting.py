"""Stored answers as training data: what people rated and mended, in forms that ``ownchat train`` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from ownchat.serve.records import CHAT, Record

Form = Literal["sft", "dpo"]


def export(records: Iterable[Record], form: Form) -> Iterator[dict[str, Any]]:
    """Rows for fine-tuning (``sft``) or preferences (``dpo``).

    ``sft``: conversations whose answer was rated up, or mended: then with the mended answer. What the model said
    earlier in them is context (weight 0): nobody has judged it. ``dpo``: a mended answer is better than the one it
    replaces, and of answers to the same prompt one that was rated up better than one that was rated down.
    """
    return _conversations(records) if form == "sft" else _preferences(records)


def _conversations(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for record in records:
        if record.edited:
            better: dict[str, Any] | None = {"role": "assistant", "content": record.edited}
        else:
            better = answered(record) if record.rating == "up" else None
        if better is None:
            continue
        context = [{**one, "weight": 0} if one["role"] == "assistant" else one for one in _sent(record.messages)]
        row = {"messages": [*context, better], **({"tools": record.tools} if record.tools else {})}
        key = json.dumps(row, sort_keys=True)
        if key not in seen:
            seen.add(key)
            yield row


def _preferences(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    by_prompt: dict[str, list[Record]] = {}
    for record in records:
        if record.edited or record.rating in ("up", "down"):
            by_prompt.setdefault(record.prompt_hash, []).append(record)
    for same in by_prompt.values():
        seen: set[tuple[str, str]] = set()
        better = [one for record in same if record.rating == "up" and not record.edited and (one := answered(record))]
        for record in same:
            worse = answered(record)
            if worse is None:
                continue
            preferred = [{"role": "assistant", "content": record.edited}] if record.edited else []
            if not preferred and record.rating == "down":
                preferred = better
            for one in preferred:
                pair = (json.dumps(one, sort_keys=True), json.dumps(worse, sort_keys=True))
                if pair[0] != pair[1] and pair not in seen:
                    seen.add(pair)
                    tools = {"tools": record.tools} if record.tools else {}
                    yield {
                        "input": {"messages": _sent(record.messages), **tools},
                        "preferred_output": [one],
                        "non_preferred_output": [worse],
                    }


def answered(record: Record) -> dict[str, Any] | None:
    """The first answer as a message of a training file; none where nothing was said."""
    if record.kind == CHAT:
        message = record.answer["choices"][0]["message"]
        text, calls = message.get("content") or "", message.get("tool_calls") or []
    else:
        output = record.answer.get("output", [])
        parts = [part for item in output if item["type"] == "message" for part in item["content"]]
        text = "".join(part.get("text", "") for part in parts)
        calls = [
            {"id": item["call_id"], "type": "function",
             "function": {"name": item["name"], "arguments": item["arguments"]}}
            for item in output if item["type"] == "function_call"
        ]  # fmt: skip
    if not text.strip() and not calls:
        return None
    return {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}


def _sent(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages as OpenAI's files have them: arguments of calls are JSON text."""
    sent = []
    for message in messages:
        calls = [
            {**call, "function": {**call["function"], "arguments": _text(call["function"]["arguments"])}}
            for call in message.get("tool_calls") or ()
        ]
        sent.append({**message, "tool_calls": calls} if calls else message)
    return sent


def _text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
