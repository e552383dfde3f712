"""Scores on the test split, each with the interval that its size allows: pure functions of arrays.

Every score is a function of sums over records (``loss = sum of nll / sum of tokens``), so a bootstrap draw adds up
the sums of the records that it drew and scores nothing again. Records of one group (a customer, a thread) resemble
each other; whole groups are drawn (cluster bootstrap: Davison and Hinkley 1997, section 3.8), since an interval that
takes them for independent is too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]  # sums (..., columns) -> values (...)

CHUNK_ELEMENTS = 4_000_000  # group counts held at a time: 32 MB
Z = 1.959964  # of the normal distribution, for 95 %
CHRF_ORDER, CHRF_BETA = 6, 2  # Popović 2015: character n-grams up to 6, recall weighs twice
CHRF_COLUMNS = 3 * CHRF_ORDER


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % interval; ``low == high`` when there is one group only and nothing to resample."""

    value: float
    low: float
    high: float

    def above(self, bound: float) -> bool:
        return self.low > bound

    def below(self, bound: float) -> bool:
        return self.high < bound


def bootstrap(
    sums: Array,
    statistic: Statistic,
    groups: Sequence[str | None],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """95 % percentile bootstrap of ``statistic(total of sums)``, clustered by group.

    ``sums`` is (records, columns); ``statistic`` maps totals (..., columns) to values (...). A group of None is a
    group of its own. Calls with equal groups, draws and seed see the same draws, so a paired difference is a
    statistic over the columns of both models. None when the score is not defined (nothing to divide by).

    With few groups the interval is too narrow: with 40 of them it covers in about 93 % of cases, with 10 in about 90 %,
    with 5 in about 83 % (simulated in a test; Cameron, Gelbach and Miller 2008).

    >>> bootstrap(np.array([[2.0, 1.0], [4.0, 1.0]]), ratio, ["a", "b"])
    Interval(value=3.0, low=2.0, high=4.0)
    """
    return bootstraps(sums, [statistic], groups, draws=draws, seed=seed)[0]


def bootstraps(
    sums: Array,
    statistics: Sequence[Statistic],
    groups: Sequence[str | None],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> list[Interval | None]:
    """:func:`bootstrap` of several statistics of the same sums, which are drawn once for all of them."""
    sums = np.asarray(sums, dtype=np.float64)
    if len(sums) == 0:
        return [None] * len(statistics)
    total, drawn = sums.sum(axis=0), _resampled_totals(sums, groups, draws, seed)
    return [_interval(statistic, total, drawn) for statistic in statistics]


def _interval(statistic: Statistic, total: Array, drawn: Array) -> Interval | None:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value = float(statistic(total))
        if not math.isfinite(value):
            return None
        values = statistic(drawn)
    values = values[np.isfinite(values)]  # a draw without a single byte has no score
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (value, value)
    return Interval(value, float(low), float(high))


def proportion(values: Array, groups: Sequence[str | None]) -> Interval | None:
    """Mean of ``values`` between 0 and 1 with Wilson's 95 % interval (1927), which keeps its width at 0 and 1.

    The size of the sample is the effective one of records in groups (Korn and Graubard 1998): the number of independent
    records that would vary as much. Where nothing varies it is the number of groups. None for no records.

    >>> found = proportion(np.ones(4), ["a", "b", "c", "d"])
    >>> found.value, round(found.low, 3), found.high
    (1.0, 0.51, 1.0)
    """
    if not len(values):
        return None
    share, index = float(np.mean(values)), group_index(groups)
    num_groups = int(index.max()) + 1
    off = np.bincount(index, values - share)  # sums over each group: what groups differ by
    variance = num_groups / max(1, num_groups - 1) * float(off @ off) / len(values) ** 2
    independent = share * (1 - share) / max(1, len(values) - 1)  # the variance, were it not for groups
    varies = num_groups > 1 and variance > 1e-12  # rounding aside
    size = num_groups if not varies else min(1.0, independent / variance) * len(values)
    spread = Z * math.sqrt(share * (1 - share) / size + Z**2 / (4 * size**2))
    middle, scale = share + Z**2 / (2 * size), 1 + Z**2 / size
    low, high = (round((middle + sign * spread) / scale, 12) for sign in (-1, 1))  # 1.0 at 1, whatever its rounding
    return Interval(share, max(0.0, low), min(1.0, high))


def _resampled_totals(sums: Array, groups: Sequence[str | None], draws: int, seed: int) -> Array:
    """Totals of each draw, (draws, columns): how often every group was drawn, times the sums of that group."""
    index = group_index(groups)
    num_groups = int(index.max()) + 1
    by_group = np.zeros((num_groups, sums.shape[1]))
    np.add.at(by_group, index, sums)
    rng = np.random.default_rng(seed)
    equal = np.full(num_groups, 1 / num_groups)
    step = max(1, CHUNK_ELEMENTS // num_groups)
    return np.concatenate(
        [rng.multinomial(num_groups, equal, size=min(step, draws - at)) @ by_group for at in range(0, draws, step)]
    )


def group_index(groups: Sequence[str | None]) -> NDArray[np.int64]:
    """Each record's group as a number from 0, in order of first sight; None starts a group of its own.

    >>> group_index(["x", None, "x", None]).tolist()
    [0, 1, 0, 2]
    """
    seen: dict[object, int] = {}
    return np.array([seen.setdefault((at,) if group is None else group, len(seen)) for at, group in enumerate(groups)])


# ---------------------------------------------------------------------------------------------------- statistics


def ratio(sums: Array) -> Array:
    """Column 0 over column 1: loss in nats per token, from (nll, tokens).

    >>> float(ratio(np.array([6.0, 2.0])))
    3.0
    """
    return np.divide(sums[..., 0], sums[..., 1])


def percentage(sums: Array) -> Array:
    """Column 0 over column 1 in percent: of tokens that were expected, of answers that are right."""
    return 100 * ratio(sums)


def improvement(sums: Array) -> Array:
    """By how many percent a loss fell, from (nll before, nll after) over the same tokens.

    >>> float(improvement(np.array([4.0, 3.0])))
    25.0
    """
    return 100 * (1 - np.divide(sums[..., 1], sums[..., 0]))


def perplexity(sums: Array) -> Array:
    """``exp(loss)``, from (nll, tokens)."""
    return np.exp(ratio(sums))


def bits_per_byte(sums: Array) -> Array:
    """Bits to write one UTF-8 byte of the replies, from (nll in nats, bytes): comparable between tokenizers."""
    return np.divide(sums[..., 0] / math.log(2), sums[..., 1])


def chrf(sums: Array) -> Array:
    """Corpus chrF (0 to 100) from summed statistics: (hypothesis, reference, matching n-grams) for each order.

    Equal to sacreBLEU's ``CHRF().corpus_score``: precision and recall are averaged over the orders that exist on
    both sides, then combined with beta = 2.

    >>> float(chrf(chrf_statistics(["the roof leaks"], ["the roof leaks"])[0]))
    100.0
    """
    table = sums.reshape(*sums.shape[:-1], CHRF_ORDER, 3)
    hypothesis, reference, match = table[..., 0], table[..., 1], table[..., 2]
    exists = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(exists.sum(axis=-1), 1)
    precision = np.divide(match, hypothesis, out=np.zeros_like(match), where=exists).sum(axis=-1) / orders
    recall = np.divide(match, reference, out=np.zeros_like(match), where=exists).sum(axis=-1) / orders
    weight = CHRF_BETA**2
    below = weight * precision + recall
    above = (1 + weight) * precision * recall
    return 100 * np.divide(above, below, out=np.zeros_like(below), where=below > 0)


def chrf_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """The n-gram counts that chrF adds up, (answers, 18); raises ValueError when the lengths differ."""
    from sacrebleu.metrics.chrf import CHRF

    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} answers, {len(references)} references")
    if not hypotheses:
        return np.zeros((0, CHRF_COLUMNS))
    # sacreBLEU has no public name for the counts of a sentence; a test holds the result to its corpus_score.
    metric = CHRF(char_order=CHRF_ORDER, word_order=0, beta=CHRF_BETA)
    return np.array(metric._extract_corpus_statistics(hypotheses, [references]), dtype=np.float64)
