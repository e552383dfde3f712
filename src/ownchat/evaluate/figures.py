"""Figures of a check from what was counted on both models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ownchat.evaluate.care import Figure, Side
from ownchat.evaluate.scores import Array, Interval, bootstrap, proportion, ratio

if TYPE_CHECKING:
    from ownchat.evaluate.care import Subject

Better = Literal["lower", "higher", "zero", "none"]
SHOWN = 160  # characters of a text in an example


def share(
    name: str,
    title: str,
    meaning: str,
    better: Better,
    hits: Mapping[Side, Array],
    *,
    groups: Sequence[str | None] | None = None,
) -> Figure:
    """Percent of rows that are 1 and not 0, in both models on the same rows; rows of a group resemble each other."""
    tuned, base = hits["tuned"], hits.get("base")
    named = [None] * len(tuned) if groups is None else groups
    return Figure(
        name, title, meaning, "percent", better,
        base=None if base is None else percent(proportion(base, named)),
        tuned=percent(proportion(tuned, named)),
        difference=None if base is None else percent(paired_difference(base, tuned, named)),
    )  # fmt: skip


def mean(
    name: str,
    title: str,
    meaning: str,
    unit: Literal["nats", "share", "count"],
    better: Better,
    values: Mapping[Side, Array],
    subject: Subject,
    *,
    groups: Sequence[str | None] | None = None,
) -> Figure:
    """The mean of one number for each row, with the bootstrap's intervals; ``values``: of both models' rows."""
    tuned, base = values["tuned"], values.get("base")
    named = [None] * len(tuned) if groups is None else groups

    def interval(numbers: Array | None) -> Interval | None:
        if numbers is None:
            return None
        sums = np.stack([numbers, np.ones(len(numbers))], axis=1)
        return bootstrap(sums, ratio, named, draws=subject.config.evaluate.draws, seed=subject.seed)

    return Figure(
        name, title, meaning, unit, better, interval(base), interval(tuned),
        interval(None if base is None else tuned - base),
    )  # fmt: skip


def paired_difference(base: Array, tuned: Array, groups: Sequence[str | None]) -> Interval | None:
    """Share of tuned - share of base, of 0 and 1 on the same rows, by Newcombe (1998, method 8).

    Unlike the bootstrap's it has a width where no row changed: of 20 rows that are all 0 twice it says that more than
    16 percentage points are out of the question, and not that nothing can differ.

    >>> found = paired_difference(np.zeros(20), np.zeros(20), [None] * 20)
    >>> found.value, round(found.low, 2), round(found.high, 2)
    (0.0, -0.16, 0.16)
    """
    before, after = proportion(base, groups), proportion(tuned, groups)
    if before is None or after is None:
        return None
    varies = base.std() > 0 and tuned.std() > 0
    alike = float(np.corrcoef(base, tuned)[0, 1]) if varies else 0.0
    change = after.value - before.value

    def reach(down: float, up: float) -> float:
        return math.sqrt(max(0.0, down**2 - 2 * alike * down * up + up**2))

    low = change - reach(after.value - after.low, before.high - before.value)
    high = change + reach(after.high - after.value, before.value - before.low)
    return Interval(change, max(-1.0, low), min(1.0, high))


def percent(found: Interval | None) -> Interval | None:
    """Of a share between 0 and 1."""
    return None if found is None else Interval(100 * found.value, 100 * found.low, 100 * found.high)


def shown(text: str) -> str:
    """A model's words as an example: short, and what looks private masked, since it may repeat its training data."""
    from ownchat.clean.private.redaction import redact

    text = " ".join(redact(text).text.split())
    return text if len(text) <= SHOWN else text[:SHOWN].rstrip() + " ..."
