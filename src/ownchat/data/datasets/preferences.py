"""Preferences: a prompt with a better and a worse answer, or with one answer that was judged.

A record of kind "preference" holds the prompt in ``messages`` and the answers in ``chosen`` and ``rejected``;
``rating`` is how much better the chosen one is (the difference of their scores, or the margin), where known. A judged
answer (KTO) is of the same kind, so that no supervised training learns undesirable answers by mistake: ``messages``
holds all of it and ``desirable`` is set.

- DPO: ``{"prompt", "chosen", "rejected"}`` with texts, turns or lists of turns; the prompt may be ``conversations``,
  ``messages``, or an instruction with its input, or what both sides begin with (hh-rlhf, UltraFeedback binarized)
- OpenAI: ``{"input": {"messages", "tools"}, "preferred_output", "non_preferred_output"}``
- two answers and a verdict: SHP, WebGPT comparisons, PKU-SafeRLHF, Chatbot Arena
- KTO: ``label`` or ``kto_tag`` beside messages, conversations, or prompt and completion

Answers with scores (UltraFeedback) are in :mod:`ownchat.data.datasets.ranked`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ownchat.data.datasets.sharegpt import LISTS, Items, is_sharegpt, prompt_of, side, turns_of
from ownchat.data.ledger import Entry
from ownchat.data.messages import tools_of
from ownchat.data.reading import dropped
from ownchat.data.records import Record, message, record

EQUAL = "chosen and rejected are equal"
TIE = "no answer is better"
_SIDES = (
    ("chosen", "rejected"),
    ("preferred_output", "non_preferred_output"),
    ("preferred_completion", "non_preferred_completion"),
    ("chosen_response", "rejected_response"),
    ("preferred", "rejected"),
)
_PAIRS = (
    ("human_ref_A", "human_ref_B"), ("answer_0", "answer_1"), ("response_0", "response_1"),
    ("response_a", "response_b"), ("conversation_a", "conversation_b"), ("response_A", "response_B"),
)  # fmt: skip
_JUDGED = ("label", "kto_tag", "desirable")
_DIALOGUE = re.compile(r"\n\n(Human|Assistant): ?")  # Anthropic's hh-rlhf
Turns = list[dict[str, Any]]


def is_preference(row: Mapping[str, Any]) -> bool:
    """Whether an object has a better and a worse answer."""
    return bool(_sides(row))


def read_preference(
    row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Items:
    """The preference of one object. Raises :class:`~ownchat.errors.DataError` for answers that are no text."""
    names = _sides(row)
    better, worse = (_answer(row[name], f"line {line}: {name}", file) for name in names)
    prompt = _prompt(row, line, file)
    if prompt is None or (_repeats(better, prompt) and _repeats(worse, prompt)):
        shared = _shared(better, worse)
        if prompt is None or _questions(better[:shared]) >= _questions(prompt):
            system = [turn for turn in prompt or () if turn["role"] == "system" and turn not in better[:shared]]
            prompt = [*system, *better[:shared]]
        better, worse = better[shared:], worse[shared:]
    source = row["input"] if isinstance(row.get("input"), dict) else row
    yield preference(
        _system(row, prompt), better, worse, _margin(row, *names), tools_of(source, file, line), group,
        file=file, format=format, line=line, offset=offset,
    )  # fmt: skip


def is_verdict(row: Mapping[str, Any]) -> bool:
    """Whether an object has two answers and says which one is better."""
    return any(a in row and b in row for a, b in _PAIRS)


def read_verdict(
    row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Items:
    """The preference of one object; a tie is dropped."""
    a, b = next((a, b) for a, b in _PAIRS if a in row and b in row)
    first, margin = _verdict(row)
    if first is None:
        yield dropped(file, line, TIE, offset)
        return
    copy = {key: value for key, value in row.items() if key not in (a, b)}
    names = (a, b) if first else (b, a)
    pair = {"chosen": row[names[0]], "rejected": row[names[1]], "margin": margin}
    yield from read_preference({**copy, **pair}, group, file=file, format=format, line=line, offset=offset)


def is_judged(row: Mapping[str, Any]) -> bool:
    """Whether an object is a conversation with a verdict on its last answer (KTO)."""
    if not any(_truth(row.get(name)) is not None for name in _JUDGED):
        return False
    return is_sharegpt(row) or ("prompt" in row and ("completion" in row or "response" in row))


def read_judged(
    row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Items:
    """The judged conversation of one object."""
    verdict = next(_truth(row.get(name)) for name in _JUDGED if _truth(row.get(name)) is not None)
    if "prompt" in row:
        name = "completion" if "completion" in row else "response"
        messages = side(row["prompt"], "user", f"line {line}: prompt", file)
        messages += side(row[name], "assistant", f"line {line}: {name}", file)
    else:
        name = next(name for name in LISTS if row.get(name))
        messages = turns_of(row[name], f"line {line}: {name}", file)
    messages = _system(row, messages)
    if not messages or messages[-1]["role"] != "assistant" or not _says(messages[-1:]):
        yield dropped(file, line, "no answer" if messages else "empty", offset)
        return
    yield record(
        "preference", file=file, format=format, line=line, offset=offset, messages=messages, desirable=verdict,
        tools=tools_of(row, file, line), group=group or None,
    )  # fmt: skip


def preference(
    prompt: Turns, chosen: Turns, rejected: Turns, rating: float | None, tools: str | None, group: str,
    *, file: str, format: str, line: int, offset: int | None = None, tags: list[str] | None = None,
) -> Record | Entry:  # fmt: skip
    """The record of a pair, or the reason why there is none."""
    if not any(turn["role"] == "user" and turn["content"].strip() for turn in prompt):
        return dropped(file, line, "no question", offset)
    if not _says(chosen) or not _says(rejected):
        return dropped(file, line, "no answer", offset)
    if [(t["content"].strip(), t.get("tool_calls")) for t in chosen] == [
        (t["content"].strip(), t.get("tool_calls")) for t in rejected
    ]:
        return dropped(file, line, EQUAL, offset)
    return record(
        "preference", file=file, format=format, line=line, offset=offset, messages=prompt, chosen=chosen,
        rejected=rejected, rating=rating, tools=tools, group=group or None, tags=tags or [],
    )  # fmt: skip


def number(value: Any) -> float | None:
    """A score, also one that is written as text; None for what is none.

    >>> number("4.5"), number(True), number("N/A")
    (4.5, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < 1e300 else None  # neither infinite nor NaN


# ----------------------------------------------------------------------------------------------------------------


def _sides(row: Mapping[str, Any]) -> tuple[str, str] | tuple[()]:
    for a, b in _SIDES:
        if isinstance(row.get(a), str | list | dict) and isinstance(row.get(b), str | list | dict):
            return (a, b)
    return ()


def _answer(value: Any, where: str, file: str) -> Turns:
    if isinstance(value, str):
        if value.lstrip("\n").startswith("Human:") and (parts := dialogue(value)):
            return parts
        return [message("assistant", value)]
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return turns_of(value, where, file) if len(value) > 1 else [message("assistant", value[0])]
    return side(value, "assistant", where, file)


def dialogue(text: str) -> Turns:
    """The turns of a text of the form ``\\n\\nHuman: ...\\n\\nAssistant: ...``; empty for any other text.

    >>> [(turn["role"], turn["content"]) for turn in dialogue("\\n\\nHuman: Hi\\n\\nAssistant: Hello")]
    [('user', 'Hi'), ('assistant', 'Hello')]
    """
    before, *parts = _DIALOGUE.split("\n\n" + text.lstrip("\n"))
    if before.strip() or not parts:
        return []
    roles = {"Human": "user", "Assistant": "assistant"}
    return [message(roles[who], said) for who, said in zip(parts[::2], parts[1::2], strict=True)]


def _prompt(row: Mapping[str, Any], line: int, file: str) -> Turns | None:
    """The turns before the answers; None where only the answers hold them."""
    if isinstance(row.get("input"), dict) and "messages" in row["input"]:
        return turns_of(row["input"]["messages"], f"line {line}: input.messages", file)
    for name in ("conversations", "messages", "prompt", "history", "question", "instruction", "context", "post"):
        value = row.get(name)
        if not value:
            continue
        if isinstance(value, dict):  # WebGPT: {"full_text": ...}
            value = value.get("full_text") or value.get("text") or value
        if isinstance(value, str):
            if value.lstrip("\n").startswith("Human:") and (parts := dialogue(value)):
                return parts
            text = prompt_of({**row, name: value}) if name in ("instruction", "prompt", "question") else value
            return [message("user", text or value)]
        return side(value, "user", f"line {line}: {name}", file)
    return None


def _repeats(turns: Turns, prompt: Turns) -> bool:
    """Whether an answer repeats the last question before it answers."""
    asked = [turn["content"].strip() for turn in prompt if turn["role"] == "user"]
    said = [turn["content"].strip() for turn in turns if turn["role"] == "user"]
    return bool(asked) and len(turns) > 1 and asked[-1] in said


def _shared(one: Turns, other: Turns) -> int:
    """How many turns both begin with, up to the last one that is not the assistant's; something remains of both."""
    pairs = zip(one[:-1], other[:-1], strict=False)
    count = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)) - 1)
    while count > 0 and one[count - 1]["role"] == "assistant":
        count -= 1
    return max(count, 0)


def _questions(turns: Turns) -> int:
    return sum(turn["role"] == "user" for turn in turns)


def _system(row: Mapping[str, Any], messages: Turns) -> Turns:
    text = row.get("system") or row.get("system_prompt")
    if isinstance(text, str) and text.strip() and not (messages and messages[0]["role"] == "system"):
        return [message("system", text), *messages]
    return messages


def _margin(row: Mapping[str, Any], better: str, worse: str) -> float | None:
    pairs = [(f"score_{better}", f"score_{worse}"), (f"{better}_score", f"{worse}_score")]
    pairs += [(f"{better}-rating", f"{worse}-rating"), (f"{better}_rating", f"{worse}_rating")]
    for a, b in [*pairs, ("chosen-score", "rejected-score")]:
        first, second = number(row.get(a)), number(row.get(b))
        if first is not None and second is not None:
            return round(first - second, 6)
    return number(row.get("margin"))


def _verdict(row: Mapping[str, Any]) -> tuple[bool | None, float | None]:
    """Whether the first answer is the better one (None: a tie, or nobody said), and by how much."""
    if "better_response_id" in row or "safer_response_id" in row:
        better = number(row.get("better_response_id", row.get("safer_response_id")))
        return (None if better not in (0, 1) else better == 0), None
    if isinstance(row.get("winner"), str):
        winner = row["winner"].strip().lower()
        return {"model_a": True, "a": True, "model_b": False, "b": False}.get(winner), None
    if number(row.get("winner_model_a")) is not None:
        return (True if row["winner_model_a"] else False if row.get("winner_model_b") else None), None
    for a, b in (("score_0", "score_1"), ("score_A", "score_B"), ("score_a", "score_b")):
        first, second = number(row.get(a)), number(row.get(b))
        if first is not None and second is not None:
            return (None if first == second else first > second), round(abs(first - second), 6)
    for name in ("labels", "label", "preference", "preferred"):
        value = row.get(name)
        if name == "labels" and value in (0, 1):  # SHP: 1 means that A is better
            return value == 1, None
        text = str(value).strip().lower()
        if text in ("a", "b"):
            return text == "a", None
    return None, None


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def _says(turns: Turns) -> bool:
    return any(turn["role"] == "assistant" and (turn["content"].strip() or turn.get("tool_calls")) for turn in turns)


def scores_tag(scores: list[float]) -> str:
    """The scores of all answers, best first, as a record's tag.

    >>> scores_tag([4.0, 3.5])
    'scores 4, 3.5'
    """
    return "scores " + ", ".join(json.dumps(int(score) if score == int(score) else score) for score in scores)
