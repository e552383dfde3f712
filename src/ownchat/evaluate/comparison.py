"""Base and tuned on the same records: every score of both, and of their difference, from the same bootstrap draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ownchat.evaluate.answer_scores import STATISTICS, Metric, score, statistics
from ownchat.evaluate.scores import (
    Array,
    Interval,
    Statistic,
    bits_per_byte,
    bootstraps,
    improvement,
    percentage,
    perplexity,
    ratio,
)

ANSWER_METRICS: tuple[Metric, ...] = ("chrf", "rouge_l", "exact")  # in the order of the fields of Scores


@dataclass(frozen=True)
class Scores:
    """The scores of one model, or of a difference. None: not defined (no answers, no bytes)."""

    loss: Interval | None
    perplexity: Interval | None
    bits_per_byte: Interval | None
    token_accuracy: Interval | None  # percent of trained tokens that the model held for the likeliest
    chrf: Interval | None
    rouge_l: Interval | None
    exact: Interval | None  # percent of answers that are the real ones


@dataclass(frozen=True)
class Comparison:
    """Base and tuned on the same replies and the same bootstrap draws; ``difference`` is tuned - base."""

    base: Scores
    tuned: Scores
    difference: Scores
    improvement: Interval | None  # by how many percent the loss fell; negative: it rose


@dataclass(frozen=True)
class Side:
    """What one model did. ``nll`` in nats, summed over each record's trained tokens with the end token; ``hits``: of
    these tokens, those that it held for the likeliest; ``answers`` to the questions, None where it was not asked."""

    nll: Array
    hits: Array
    answers: Sequence[str] | None


@dataclass(frozen=True)
class Scored:
    """What both models did with the same replies, one entry for each record; and with the questions, which are fewer
    and have their own groups. ``num_bytes`` of the replies in UTF-8."""

    base: Side
    tuned: Side
    tokens: Array
    num_bytes: Array
    groups: Sequence[str | None]
    references: Sequence[str]
    answer_groups: Sequence[str | None]


def compare(scored: Scored, *, draws: int = 1000, seed: int = 0) -> Comparison:
    """All scores of base and tuned, their paired difference, and the relative fall of the loss in percent.

    Shares of answers have Wilson's interval, see :func:`~ownchat.evaluate.answer_scores.score`; all else, and every
    difference, has the bootstrap's.
    """
    base, tuned = scored.base, scored.tuned
    sums = np.stack([base.nll, tuned.nll, base.hits, tuned.hits, scored.tokens, scored.num_bytes], axis=1)
    views: list[Statistic] = []
    for statistic, before, after, over in (
        (ratio, 0, 1, 4), (perplexity, 0, 1, 4), (bits_per_byte, 0, 1, 5), (percentage, 2, 3, 4),
    ):  # fmt: skip
        views += _views(statistic, [before, over], [after, over])
    views.append(lambda total: improvement(total[..., :2]))
    *found, fell = bootstraps(sums, views, scored.groups, draws=draws, seed=seed)
    rows = [found[at : at + 3] for at in range(0, len(found), 3)]
    for metric in ANSWER_METRICS:
        rows.append(_of_answers(metric, scored, draws, seed))
    of_base, of_tuned, change = (Scores(*column) for column in zip(*rows, strict=True))
    return Comparison(of_base, of_tuned, change, fell)


def compare_answers(
    base: Sequence[str],
    tuned: Sequence[str],
    references: Sequence[str],
    groups: Sequence[str | None],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """The same of answers alone: what needs the probabilities of a text is None.

    >>> found = compare_answers(["No."], ["Yes."], ["Yes."], ["a"])
    >>> found.base.exact.value, found.tuned.exact.value, found.tuned.loss
    (0.0, 100.0, None)
    """
    none = np.zeros(0)
    if not references:
        missing = Scores(*[None] * (4 + len(ANSWER_METRICS)))
        return Comparison(missing, missing, missing, None)
    first, second = Side(none, none, base), Side(none, none, tuned)
    scored = Scored(first, second, none, none, (), references, groups)
    rows = [_of_answers(metric, scored, draws, seed) for metric in ANSWER_METRICS]
    of_base, of_tuned, change = (Scores(None, None, None, None, *column) for column in zip(*rows, strict=True))
    return Comparison(of_base, of_tuned, change, None)


def _of_answers(metric: Metric, scored: Scored, draws: int, seed: int) -> list[Interval | None]:
    groups = scored.answer_groups
    if scored.base.answers is None or scored.tuned.answers is None:
        return [
            None if side.answers is None
            else score(metric, side.answers, scored.references, groups, draws=draws, seed=seed)
            for side in (scored.base, scored.tuned)
        ] + [None]  # fmt: skip
    texts = (scored.base.answers, scored.tuned.answers)
    parts = [statistics(metric, answers, scored.references) for answers in texts]
    width = parts[0].shape[1]
    views = _views(STATISTICS[metric], list(range(width)), list(range(width, 2 * width)))
    found = bootstraps(np.concatenate(parts, axis=1), views, groups, draws=draws, seed=seed)
    if metric == "exact":
        found[:2] = [score(metric, answers, scored.references, groups) for answers in texts]
    return found


def _views(statistic: Statistic, base: Sequence[int], tuned: Sequence[int]) -> list[Statistic]:
    """A statistic of the base's columns, of the tuned model's, and its difference."""
    first: Statistic = lambda total: statistic(total[..., base])  # noqa: E731
    second: Statistic = lambda total: statistic(total[..., tuned])  # noqa: E731
    return [first, second, lambda total: second(total) - first(total)]
