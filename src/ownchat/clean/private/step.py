"""Private data of a batch of records: messages, documents and preferences, each record a conversation of its own."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable
from functools import partial
from hashlib import sha256
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.batches import with_column
from ownchat.clean.private.redaction import Redactor
from ownchat.clean.private.spans import DEFAULT
from ownchat.data.ledger import Entry
from ownchat.data.records import SCHEMA, to_batch

LISTS = ("messages", "chosen", "rejected")
RULE = "private data"
_PARTS = frozenset(  # what a speaker is called who has no name
    ["user", "system", "assistant", "agent", "bot", "chatbot", "customer", "client", "caller", "guest", "visitor",
     "human", "operator", "support", "service", "helper", "wizard", "gpt", "model", "tool", "admin", "moderator",
     "speaker", "unknown", "anonymous"]
)  # fmt: skip


def redact_private(
    batch: pa.RecordBatch,
    *,
    types: Iterable[str] = DEFAULT,
    allow: Iterable[str] = (),
    deny: Iterable[str] = (),
    threshold: float | None = None,
    surrogates: bool = False,
) -> tuple[pa.RecordBatch, list[Entry]]:
    """Put placeholders in place of private data; the ledger gets counts by type, and no text.

    Numbering starts anew in each record. Strings inside tool calls are redacted one by one, so that they stay JSON;
    the ``name`` of who speaks becomes a placeholder too. With any ``types`` the ``group`` (a customer's name
    or address) becomes a hash of it, the same everywhere, so that groups still hold together.
    """
    types = tuple(types)
    if types:
        batch = with_column(batch, "group", _pseudonyms(batch.column("group")))
    redactor = Redactor(types=types, allow=allow, deny=deny, threshold=threshold, surrogates=surrogates)
    rows = batch.to_pylist()
    gathered = [_gather(row) for row in rows]
    texts = [[text for text, _ in some] for some in gathered]
    found = redactor.finder.find(texts, [[is_answer for _, is_answer in some] for some in gathered])
    entries, changed = [], {}
    for number, (row, its_texts, spans) in enumerate(zip(rows, texts, found, strict=True)):
        counts = Counter(span.type for one in spans for span in one)
        names = "person" in redactor.finder.types and any(_is_named(turn) for name in LISTS for turn in row[name] or ())
        if not counts and not names:
            continue
        redactor.forget()
        redacted = deque(one.text for one in redactor.replace(its_texts, spans))
        changed[number] = _rebuild(row, partial(_next, redacted), redactor if names else None, counts)
        detail = ", ".join(f"{type} {count}" for type, count in sorted(counts.items()))
        entries.append(Entry("row", row["id"], "changed", RULE, count=sum(counts.values()), detail=detail))
    if changed:
        batch = to_batch([changed.get(number, row) for number, row in enumerate(rows)])
    assert batch.schema.equals(SCHEMA)
    return batch, entries


def _pseudonyms(groups: pa.Array) -> pa.Array:
    """16 hexadecimal digits of SHA-256 for each group; none stays none."""
    made = {group: sha256(group.encode()).hexdigest()[:16] for group in pc.unique(groups).to_pylist() if group}
    return pa.array([made.get(group, group) for group in groups.to_pylist()], pa.string())


def _next(redacted: deque[str], text: str, is_answer: bool = False) -> str:
    return redacted.popleft()


class _Replace(Protocol):
    """What gives a text for a text; ``is_answer``: an assistant's message, not a part of its tool call."""

    def __call__(self, text: str, is_answer: bool = False) -> str: ...


def _gather(row: dict[str, Any]) -> list[tuple[str, bool]]:
    """All texts of a record in the order in which :func:`_rebuild` asks for them; and which are an assistant's."""
    texts: list[tuple[str, bool]] = []

    def keep(text: str, is_answer: bool = False) -> str:
        texts.append((text, is_answer))
        return text

    _rebuild(row, keep, None, Counter())
    return texts


def _rebuild(row: dict[str, Any], replace: _Replace, redactor: Redactor | None, counts: Counter[str]) -> dict[str, Any]:
    made = dict(row)
    if row["text"]:
        made["text"] = replace(row["text"])
    for name in LISTS:
        if row[name] is not None:
            made[name] = [_rebuild_turn(turn, replace, redactor, counts) for turn in row[name]]
    return made


def _rebuild_turn(
    turn: dict[str, Any], replace: _Replace, redactor: Redactor | None, counts: Counter[str]
) -> dict[str, Any]:
    made = dict(turn)
    if turn["content"] and turn["role"] != "system":  # an instruction, the same when the model is talked to later
        made["content"] = replace(turn["content"], turn["role"] == "assistant")
    if turn["tool_calls"]:
        made["tool_calls"] = _rebuild_json(turn["tool_calls"], replace)
    if redactor is not None and _is_named(turn):
        made["name"] = redactor.placeholder("person", turn["name"])
        counts["person"] += 1
    return made


def _is_named(turn: dict[str, Any]) -> bool:
    """Whether the one who speaks has a name: "USER" and "Agent 7" are parts that somebody plays."""
    return (
        bool(turn["name"]) and turn["role"] != "tool" and turn["name"].casefold().rstrip("0123456789 _-#") not in _PARTS
    )


def _rebuild_json(text: str, replace: _Replace) -> str:
    """JSON with the strings and long numbers in it replaced; names of fields and of functions stay."""
    try:
        value = json.loads(text)
    except ValueError:
        return replace(text)
    made = _walk(value, replace, "")
    return text if made == value else json.dumps(made, ensure_ascii=False)


def _walk(value: Any, replace: _Replace, field: str) -> Any:
    if isinstance(value, dict):
        return {key: _walk(one, replace, key) for key, one in value.items()}
    if isinstance(value, list):
        return [_walk(one, replace, field) for one in value]
    if isinstance(value, str):
        if field in ("type", "id", "name") or not value:
            return value
        return _rebuild_json(value, replace) if value[0] in "{[" else replace(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        made = replace(str(value))
        return value if made == str(value) else made
    return value
