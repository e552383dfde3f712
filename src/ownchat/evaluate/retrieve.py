"""Examples that resemble a question: answered ones of the data, looked up by BM25."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ownchat.data.records import Record
from ownchat.evaluate.replies import is_trained
from ownchat.generate.retrieve import BM25

Pair = tuple[str, str]  # question, answer


class Examples:
    """Questions with answers, to be looked up by a question.

    >>> Examples([("Where is my parcel?", "On its way."), ("Is the pump loud?", "No.")]).nearest("my parcel", 1)
    [('Where is my parcel?', 'On its way.')]
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)
        self._index = BM25([question for question, _ in pairs])

    def nearest(self, question: str, k: int) -> list[Pair]:
        """The ``k`` pairs whose questions resemble this one most, the most similar first."""
        return [self.pairs[row] for row in self._index.top(question, k)]


def pairs(records: Iterable[Record]) -> list[Pair]:
    """The last question and its answer of each conversation that ends in one; equal pairs once.

    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello.", "weight": None}]
    >>> pairs([{"kind": "conversation", "messages": turns}] * 2)
    [('Hi', 'Hello.')]
    """
    found = []
    for item in records:
        turns: Sequence[dict[str, Any]] = item["messages"] or []
        if item["kind"] != "conversation" or len(turns) < 2 or turns[-1]["role"] != "assistant":
            continue
        question, answer = last_question(turns[:-1]), (turns[-1]["content"] or "").strip()
        if question and answer and is_trained(turns[-1]):
            found.append((question, answer))
    return list(dict.fromkeys(found))


def last_question(messages: Sequence[dict[str, Any]]) -> str:
    """The text of the last message of the user; empty: there is none."""
    return next(((turn["content"] or "").strip() for turn in reversed(messages) if turn["role"] == "user"), "")
