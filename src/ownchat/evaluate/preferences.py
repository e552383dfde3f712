"""Pairs of the test split: does a model find the better reply likelier than the worse one?

A base and its tuned model are compared by each one's own choice (per token, so that a short reply has no advantage),
and by the reward that preference training gives implicitly: the log-probability of a reply under the tuned model minus
that under the base (Rafailov et al. 2023), chosen minus rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ownchat.data.records import Record
from ownchat.errors import DataError
from ownchat.evaluate.scores import Array, Interval, bootstrap, proportion, ratio

Document = tuple[list[int], list[int]]  # ids, weights


@dataclass(frozen=True)
class Preferences:
    """Shares are of pairs, 0 to 1, with their 95 % intervals; an equal score counts as half a pair."""

    pairs: int
    base: Interval | None  # pairs whose better reply is the likelier one by token, for the base
    tuned: Interval | None  # and for the tuned model
    difference: Interval | None  # tuned - base
    rewarded: Interval | None  # pairs whose better reply gained more by training than the worse one
    margin: Interval | None  # mean of what it gained more, in nats


def is_pair(item: Record) -> bool:
    return item["kind"] == "preference" and item["desirable"] is None


def as_conversation(item: Record) -> Record | None:
    """The reply that was wanted, with what stands before it as context; None for one that was not wanted."""
    messages = item["messages"] or []
    before, reply = (messages, item["chosen"]) if is_pair(item) else (messages[:-1], messages[-1:])
    if item["desirable"] is False or not reply:
        return None
    return item | {"kind": "conversation", "messages": [*(turn | {"weight": 0} for turn in before), *reply]}


def pair_documents(tokenizer: Any, records: Sequence[Record]) -> tuple[list[Record], list[Document]]:
    """The pairs that the template takes, and their replies as documents: chosen, rejected, chosen, ..."""
    from ownchat.tokenizer.preferences import replies

    items: list[Record] = []
    documents: list[Document] = []
    for item in filter(is_pair, records):
        try:
            made = replies(tokenizer, item)
        except DataError:  # the tokens stage dropped it as well
            continue
        items.append(item)
        documents += [(reply.rendered.ids, reply.rendered.weights) for reply in made]
    return items, documents


def compare_pairs(
    pairs: Sequence[Record], documents: Sequence[Document], base: Array, tuned: Array, *, draws: int = 1000
) -> Preferences:
    """``documents``: of :func:`pair_documents`; ``base``, ``tuned``: nats of each, summed over its trained tokens.

    >>> replies = [([1, 2, 3], [0, 1, 1])] * 2
    >>> found = compare_pairs([{"group": "a"}], replies, np.array([4.0, 2.0]), np.array([1.0, 3.0]))
    >>> found.base.value, found.tuned.value, found.rewarded.value, found.margin.value
    (0.0, 1.0, 1.0, 4.0)
    """
    tokens = np.array([sum(weights) for _, weights in documents], dtype=np.float64)
    choices = [_preferred((nll / tokens)[1::2] - (nll / tokens)[0::2]) for nll in (base, tuned)]
    gains = base - tuned
    margins = gains[0::2] - gains[1::2]
    groups = [item["group"] for item in pairs]

    def mean(values: Array) -> Interval | None:
        return bootstrap(np.stack([values, np.ones(len(values))], axis=1), ratio, groups, draws=draws)

    return Preferences(
        pairs=len(margins),
        base=proportion(choices[0], groups),
        tuned=proportion(choices[1], groups),
        difference=mean(choices[1] - choices[0]),
        rewarded=proportion(_preferred(margins), groups),
        margin=mean(margins),
    )


def _preferred(differences: Array) -> Array:
    return (np.sign(differences) + 1) / 2
