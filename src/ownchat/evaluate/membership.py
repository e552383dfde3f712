"""How well a score tells members (trained records) from others: pure functions of arrays, more means member."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ownchat.evaluate.figures import percent
from ownchat.evaluate.scores import Array, Interval, group_index, proportion

MOST = 2_000  # of each kind: every one is compared with every other
FALSE_ALARMS = 0.01
LEAST_OTHERS = 100  # for which one in a hundred means something


def auc(
    members: Array,
    others: Array,
    member_groups: Sequence[str | None],
    other_groups: Sequence[str | None],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """Area under the ROC curve: how often a member scores above another one, ties for half, with a 95 % bootstrap
    interval by group. None where one kind is missing.

    >>> auc(np.array([3.0, 2.0]), np.array([1.0, 0.0]), ["a", "b"], ["c", "d"])
    Interval(value=1.0, low=1.0, high=1.0)
    """
    members, others = members[:MOST], others[:MOST]
    if not len(members) or not len(others):
        return None
    above = (members[:, None] > others).astype(np.float64) + 0.5 * (members[:, None] == others)
    rng = np.random.default_rng(seed)
    ours, theirs = (
        _drawn(groups[:MOST], draws, rng) for groups in (member_groups, other_groups)
    )  # how often each record was drawn
    areas = np.einsum("di,ij,dj->d", ours, above, theirs, optimize=True) / (ours.sum(axis=1) * theirs.sum(axis=1))
    low, high = np.quantile(areas, [0.025, 0.975])
    return Interval(float(above.mean()), float(low), float(high))


def _drawn(groups: Sequence[str | None], draws: int, rng: np.random.Generator) -> Array:
    index = group_index(groups)
    number = int(index.max()) + 1
    return rng.multinomial(number, np.full(number, 1 / number), size=draws)[:, index].astype(np.float64)


def true_positive_share(members: Array, others: Array, member_groups: Sequence[str | None]) -> Interval | None:
    """Percent of members above the score that at most 1 % of the others exceed; None for fewer than 100 others, of
    which 1 % is none.

    >>> true_positive_share(np.array([99.5, 0.0]), np.arange(100.0), ["a", "b"]).value
    50.0
    """
    if len(others) < LEAST_OTHERS or not len(members):
        return None
    ordered = np.sort(others)
    bound = ordered[len(ordered) - 1 - int(FALSE_ALARMS * len(ordered))]
    return percent(proportion((members > bound).astype(np.float64), member_groups))
