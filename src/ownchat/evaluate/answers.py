"""Greedy answers of base and tuned to questions of the test split."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownchat.data.records import Record
from ownchat.evaluate.documents import Prompt, without_system
from ownchat.evaluate.replies import is_trained
from ownchat.monitor.progress import progress


@dataclass(frozen=True)
class Answer:
    """One question of the test split with the answer that was given then and those of both models."""

    id: str
    question: str
    reference: str
    base: str
    tuned: str


def questions(items: Sequence[Record]) -> list[Record]:
    """Conversations that end in a reply to somebody, in the order of their ids.

    An id is a hash of the record's source, position and content, so the first of them are an even draw from the
    split that nobody can steer by hand, and the same one each time.
    """
    fit = [
        item
        for item in items
        if item["kind"] == "conversation"
        and any(message["role"] != "system" for message in item["messages"][:-1])
        and item["messages"][-1]["role"] == "assistant"
        and is_trained(item["messages"][-1])
        and (item["messages"][-1]["content"] or "").strip()
    ]
    return sorted(fit, key=lambda item: item["id"])


def fitting(
    candidates: Sequence[Record], most: int, prompts: Callable[[Record], Sequence[list[int]]], context: int | None
) -> tuple[list[Record], int]:
    """The first ``most`` whose prompts leave room for an answer, and how many were passed over on the way."""
    chosen: list[Record] = []
    too_long = 0
    for item in candidates:
        if len(chosen) == most:
            break
        if context is not None and max(map(len, prompts(item))) >= context:
            too_long += 1
        else:
            chosen.append(item)
    return chosen, too_long


def prompts_of(tokenizer: Any, item: Record, base_prompt: Prompt) -> list[list[int]]:
    """The question as the base gets it and as the tuned model gets it."""
    from ownchat.tokenizer.render import prompt_ids

    messages = item["messages"][:-1]
    bases = without_system(messages) if base_prompt == "default" else messages
    tools = json.loads(item["tools"]) if item["tools"] else None
    return [prompt_ids(tokenizer, bases, tools), prompt_ids(tokenizer, messages, tools)]


def why_no_answers(items: Sequence[Record], most: int, too_long: int) -> str:
    """``too_long``: questions that were passed over for it."""
    if too_long:
        return "chrF is missing: no question was short enough."
    if most == 0:
        return "chrF is missing: evaluate.answers is 0."
    if all(item["kind"] == "document" for item in items):
        return "chrF is missing: the data are documents, without questions to answer."
    return "chrF is missing: no conversation of the test split ends in a reply."


def answer(
    base: Path | None, tuned: Path, tokenizer: Any, asked: Sequence[Record], base_prompt: Prompt, max_tokens: int
) -> tuple[Answer, ...]:
    """Greedy answers of both models; the base under its better prompt, the tuned model under that of the data.
    ``base`` none: it has none."""
    prompts = [prompts_of(tokenizer, item, base_prompt) for item in asked]
    base_texts = [""] * len(asked)
    if base is not None:
        base_texts = _greedy(base, tuned, [first for first, _ in prompts], max_tokens, "answers of the base")
    tuned_texts = _greedy(tuned, tuned, [second for _, second in prompts], max_tokens, "answers of the tuned model")
    return tuple(
        Answer(item["id"], _last_question(item["messages"][:-1]), item["messages"][-1]["content"].strip(), *texts)
        for item, *texts in zip(asked, base_texts, tuned_texts, strict=True)
    )


def _greedy(directory: Path, words: Path, prompts: list[list[int]], max_tokens: int, title: str) -> list[str]:
    from ownchat.generate.hf import chat_engine

    engine = chat_engine(directory, tokenizer=words)
    try:
        with progress(title, len(prompts), "answers") as advance:
            answers = engine.answer_batch(prompts, max_tokens, progress=advance)
        texts = [engine.text(ids).strip() for ids in answers]
    finally:
        engine.close()
    return texts


def _last_question(messages: Sequence[dict[str, Any]]) -> str:
    return next(((m["content"] or "").strip() for m in reversed(messages) if m["role"] != "system"), "")
