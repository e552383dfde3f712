"""How near a question is to what a model was trained on: by its letters alone, so that no model needs to be asked.

A question is compared with everything that was said in the train split (and, where there are documents, with their
paragraphs) by stretches of four characters, which know "permits" from "permit" and work in every language. It is a
matter of wording: a question in other words than the data's looks far away, and one that mixes the data's words with
something else looks near. ``evaluate.care`` measures how well the two can be told apart on the run's own test split
(:mod:`ownchat.evaluate.scope`), and names the threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ownchat.artifacts import CLEAN
from ownchat.data.records import Record, read_records, shards
from ownchat.errors import DataError
from ownchat.generate.retrieve import BM25, split

SIZE = 4  # characters of a stretch; of 3 to 5 the one that told most questions apart
MOST_TEXTS = 20_000  # of the train split; more are thinned out evenly
MOST_CHARACTERS = 2_000  # of a text that are looked at
QUESTION_CHARACTERS = 500
LEAST_PARAGRAPH = 40  # characters; headings are no passage to ask about


class Scope:
    """Texts that a question can be near to.

    >>> scope = Scope(["where is my parcel", "can I return a parcel", "is the pump loud"])
    >>> scope("Where are the parcels?") > scope("Who won the election?")
    True
    """

    def __init__(self, texts: Sequence[str]) -> None:
        # With k1 = 0 a text's score is the summed rarity of the question's stretches in it: neither length nor
        # repetition counts, and the share of all the question's stretches lies between 0 and 1.
        self._index = BM25([text[:MOST_CHARACTERS] for text in texts], k1=0.0, tokens=stretches)

    def __call__(self, question: str) -> float:
        """0 to 1: the share of the question's stretches, each weighed by how rare it is in the training data, that
        stand together in the training text with most of them. 1 for a question without one word ("?")."""
        question = question[:QUESTION_CHARACTERS]
        whole = sum(map(self._index.rarity, stretches(question)))
        if whole == 0:
            return 1.0
        return min(1.0, float(self._index.scores(question).max(initial=0.0)) / whole)

    @classmethod
    def of_run(cls, run: Path) -> Scope:
        """Of the train split in ``run/2-clean``. Raises :class:`~ownchat.errors.DataError` where there is none."""
        train = run / CLEAN / "train"
        if not shards(train):
            raise DataError(
                "the cleaned training data are not here, so it cannot be told what is out of scope",
                where=str(train),
                fix="use a run of ownchat train that still has its 2-clean, or leave out generate.policy.out_of_scope",
            )
        return cls(training_texts(read_records(train)))


def stretches(text: str) -> list[str]:
    """All :data:`SIZE` characters in a row of the words, one space between them and around them.

    >>> stretches("Is it?")
    [' is ', 'is i', 's it', ' it ']
    >>> stretches("?!")
    []
    """
    words = split(text)
    line = f" {' '.join(words)} " if words else ""
    return [line[at : at + SIZE] for at in range(max(1, len(line) - SIZE + 1))] if line else []


def training_texts(records: Iterable[Record]) -> list[str]:
    """What users and assistants said, and the paragraphs of documents; equal ones once, :data:`MOST_TEXTS` at most.

    >>> training_texts([{"kind": "conversation", "messages": [{"role": "user", "content": " Is it open? "}]}])
    ['Is it open?']
    """
    texts = list(dict.fromkeys(_texts(records)))
    if len(texts) <= MOST_TEXTS:
        return texts
    return [texts[at] for at in np.linspace(0, len(texts) - 1, MOST_TEXTS).astype(int).tolist()]


def _texts(records: Iterable[Record]) -> Iterator[str]:
    for item in records:
        if item["kind"] == "document":
            paragraphs = (text.strip() for text in (item["text"] or "").split("\n\n"))
            yield from (text for text in paragraphs if len(text) >= LEAST_PARAGRAPH)
        else:
            said = ((one["content"] or "").strip() for one in item["messages"] or () if one["role"] in _SPEAKERS)
            yield from (text for text in said if text)


_SPEAKERS = ("user", "assistant")
