"""Examples that resemble a question: BM25 over texts in memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ownchat.data.records import Record
from ownchat.evaluate.answer_scores import words
from ownchat.evaluate.replies import is_trained

K1, B = 1.2, 0.75  # how soon a word that is repeated counts no more, and how much length counts: Lucene's defaults

_ASCII_WORDS = re.compile("[a-z0-9]+")

Pair = tuple[str, str]  # question, answer


class BM25:
    """Okapi BM25 as Lucene has it (Robertson and Zaragoza 2009; the inverse document frequency is never negative).

    ``score = sum over words of ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / mean length))``
    with ``f`` the word's count in the text, and ``n`` of ``N`` texts that hold it. A word that stands twice in the
    query counts twice. What does not depend on the query is computed once: 100,000 texts of 50 words take about 60 MB.

    >>> BM25(["where is my parcel", "the pump is loud", "a parcel is late"]).top("my late parcel?", 2)
    [0, 2]
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._words: dict[str, int] = {}
        word_ids: list[int] = []
        counts: list[int] = []
        distinct = np.zeros(len(texts), dtype=np.int64)
        lengths = np.zeros(len(texts), dtype=np.float64)
        for number, text in enumerate(texts):
            found = Counter(split(text))
            word_ids += [self._words.setdefault(word, len(self._words)) for word in found]
            counts += found.values()
            distinct[number], lengths[number] = len(found), found.total()
        ids = np.array(word_ids, dtype=np.int32)
        by_word = np.argsort(ids, kind="stable")  # texts stay in order within a word
        self._texts = np.repeat(np.arange(len(texts), dtype=np.int32), distinct)[by_word]
        holding = np.bincount(ids, minlength=len(self._words))
        self._starts = np.r_[0, np.cumsum(holding)]
        frequency = np.array(counts, dtype=np.float64)[by_word]
        rarity = np.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        mean = float(lengths.mean()) if lengths.any() else 1.0
        self._weights = np.repeat(rarity, holding) * (
            frequency / (frequency + K1 * (1 - B + B * lengths[self._texts] / mean))
        )
        self._count = len(texts)

    def scores(self, query: str) -> NDArray[np.float64]:
        """The score of every text, [texts]; 0 for those that share no word with the query."""
        total = np.zeros(self._count)
        for word, count in Counter(split(query)).items():
            if (id := self._words.get(word)) is not None:
                stretch = slice(self._starts[id], self._starts[id + 1])
                total[self._texts[stretch]] += count * self._weights[stretch]  # a text stands in it once
        return total

    def top(self, query: str, k: int) -> list[int]:
        """The ``k`` texts with the best scores, the best first; of equal ones the earlier. All of them, if there are
        fewer; texts without a word of the query fill up."""
        best: list[int] = np.argsort(-self.scores(query), kind="stable")[: max(k, 0)].tolist()
        return best


def split(text: str) -> list[str]:
    """The words of :func:`~ownchat.evaluate.answer_scores.words`, of ASCII text ten times as fast.

    >>> split("The pump's No. 7_b")
    ['the', 'pump', 's', 'no', '7', 'b']
    """
    return _ASCII_WORDS.findall(text.lower()) if text.isascii() else words(text)


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
