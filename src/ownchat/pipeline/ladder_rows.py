"""The held-out questions that every rung of a ladder answers, and what a model has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownchat.errors import DataError, UserError

if TYPE_CHECKING:
    from ownchat.data.records import Record
    from ownchat.evaluate.ladder import Fits
    from ownchat.generate.hf import HfEngine

WHY_NOT = ("they come with tools", "the chat template refuses them", "they are longer than the model's context")


def taken_here(model: Path) -> Callable[[Record], str | None]:
    """Tells which of :data:`WHY_NOT` keeps a question from this model; None: nothing."""
    from ownchat.tokenizer.render import prompt_ids
    from ownchat.tokenizer.stage import context_tokens, load_tokenizer

    tokenizer, context = load_tokenizer(model), context_tokens(model)

    def why_not(item: Record) -> str | None:
        if item["tools"]:
            return WHY_NOT[0]
        try:
            ids = prompt_ids(tokenizer, item["messages"][:-1])
        except UserError:
            return WHY_NOT[1]
        return WHY_NOT[2] if context is not None and len(ids) >= context else None

    return why_not


def taken_there(item: Record) -> str | None:
    """What a service can take, it says by itself."""
    return WHY_NOT[0] if item["tools"] else None


def replies_of(records: Sequence[Record]) -> set[str]:
    """What the trained replies say."""
    from ownchat.evaluate.replies import is_trained

    turns = (turn for item in records for turn in item["messages"] or () if is_trained(turn))
    return {(turn["content"] or "").strip() for turn in turns}


def label_tokens(model: Path, labels: Iterable[str]) -> int:
    """Tokens after which an answer can be none of the labels: twice the longest one's, for another spelling, and some.

    A model that was not trained goes on to the end it is given, and all of it is waited for.
    """
    from ownchat.tokenizer.stage import load_tokenizer

    encode = load_tokenizer(model).encode
    return 2 * max((len(encode(label, add_special_tokens=False)) for label in labels), default=0) + 8


def asked(
    test: Sequence[Record], most: int, why_not: Callable[[Record], str | None], where: str
) -> tuple[list[Record], list[str]]:  # fmt: skip
    """The first ``most`` questions of the test split, those of the report, and what was passed over on the way."""
    from ownchat.evaluate.answers import questions

    chosen: list[Record] = []
    passed = dict.fromkeys(WHY_NOT, 0)
    for item in questions(test):
        if len(chosen) == most:
            break
        if (why := why_not(item)) is None:
            chosen.append(item)
        else:
            passed[why] += 1
    notes = [f"{count:,} questions were passed over: {why}." for why, count in passed.items() if count]
    if not chosen:
        raise DataError(
            "no question to ask" + (f" ({notes[0]})" if notes else ""), where=where,
            fix="the ladder needs conversations that end in a reply; of documents the report compares losses",
        )  # fmt: skip
    if len(chosen) < most:
        notes.append(f"The test split has {len(chosen):,} questions, {most:,} were asked for.")
    return chosen, notes


def room_in(engine: HfEngine, max_tokens: int) -> Fits:
    """Is there room for an answer behind these messages?"""
    from ownchat.tokenizer.render import prompt_ids

    def fits(messages: Sequence[dict[str, Any]]) -> bool:
        return engine.context is None or len(prompt_ids(engine.tokenizer, messages)) + max_tokens <= engine.context

    return fits
