"""Where the model gained and where it lost: the loss of parts of the test split, by source, topic and length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ownchat.data.given import TAGS as GIVEN
from ownchat.data.records import Record
from ownchat.evaluate.scores import Array, Interval, bootstraps, group_index, improvement, ratio

By = Literal["source", "topic", "length"]

MOST = 8  # parts of one sort that are named; what is rarer goes together
OTHER = "other"
NO_TOPIC = "no topic"
FEW_GROUPS = 5  # of a slice: with fewer its interval is too narrow to be trusted
# Tags that say how a record came to be or what is wrong with it, and not what it is about.
NO_TOPICS = frozenset((
    "synthetic", "grounded", "quoted", "posts", "crowd", "toxic", "off-topic", "contradiction", *GIVEN.values(),
))  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """A part of the records. With few groups its interval is too narrow, and with one it has no width."""

    by: By
    name: str
    records: int
    groups: int
    base: Interval | None  # nats per trained token
    tuned: Interval | None
    improvement: Interval | None  # by how many percent the loss fell; negative: it rose


def slices(
    items: Sequence[Record],
    base_nll: Array,
    tuned_nll: Array,
    tokens: Array,
    groups: Sequence[str | None],
    *,
    draws: int = 1000,
) -> list[Slice]:
    """Every sort of part that there is more than one of, one entry a record in all arrays.

    By source file; by topic, the first of a record's tags; and by length, thirds of the records by trained tokens.
    """
    sums = np.stack([base_nll, tokens, tuned_nll], axis=1)
    found: list[Slice] = []
    sorts: list[tuple[By, list[str]]] = [
        ("source", frequent([str(item["source"]["file"]) for item in items])),
        ("topic", frequent([topic(item) for item in items])),
        ("length", thirds(tokens)),
    ]
    for by, names in sorts:
        counts = Counter(names)
        if len(counts) < 2:
            continue
        if by == "length":
            order = sorted(counts, key=lambda name: float(tokens[names.index(name)]))
        else:
            order = sorted(counts, key=lambda name: (name == OTHER, -counts[name]))
        for name in order:
            rows = [at for at, other in enumerate(names) if other == name]
            mine = [groups[at] for at in rows]
            views: list[Callable[[Array], Array]] = [
                ratio, lambda total: total[..., 2] / total[..., 1], lambda total: improvement(total[..., [0, 2]])
            ]  # fmt: skip
            intervals = bootstraps(sums[rows], views, mine, draws=draws)
            found.append(Slice(by, name, len(rows), int(group_index(mine).max()) + 1, *intervals))
    return found


def topic(item: Record) -> str:
    """The first tag that says what a record is about.

    >>> topic({"tags": ["synthetic", "refunds"]}), topic({"tags": None})
    ('refunds', 'no topic')
    """
    tags = [tag for tag in item["tags"] or () if tag not in NO_TOPICS and not tag.startswith("scores ")]
    return tags[0] if tags else NO_TOPIC


def frequent(names: Sequence[Any]) -> list[str]:
    """The names with those beyond the :data:`MOST` most frequent ones (ties: first seen) as ``other``.

    >>> frequent(["a", "b", "a", "c"])
    ['a', 'b', 'a', 'c']
    """
    counts = Counter(names)
    if len(counts) <= MOST:
        return list(names)
    named = {name for name, _ in counts.most_common(MOST)}
    return [name if name in named else OTHER for name in names]


def thirds(tokens: Array) -> list[str]:
    """Names of equal thirds by length; records of one length are in one of them.

    >>> thirds(np.array([3.0, 5.0, 9.0, 3.0, 4.0, 20.0]))
    ['up to 3 tokens', '4 to 5 tokens', '6 tokens and more', 'up to 3 tokens', '4 to 5 tokens', '6 tokens and more']
    """
    low, high = np.quantile(tokens, [1 / 3, 2 / 3], method="inverted_cdf")
    names = []
    for length in tokens:
        if length <= low:
            names.append(f"up to {low:,.0f} tokens")
        elif length <= high:
            names.append(f"{low + 1:,.0f} to {high:,.0f} tokens")
        else:
            names.append(f"{high + 1:,.0f} tokens and more")
    return names
