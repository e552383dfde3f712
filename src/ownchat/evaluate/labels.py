"""Data whose replies are labels: accuracy, macro-F1 and the confusion table, of base and tuned.

The figures are those of scikit-learn (``accuracy_score``, ``f1_score(average="macro")``, ``confusion_matrix``) on the
labels compared as :func:`~ownchat.evaluate.answer_scores.label_key` says. An answer that is none of the labels of the
data is ``other``: wrong for its record, and no label of its own in the mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ownchat.data.records import Record
from ownchat.evaluate.answer_scores import label_key, metric_for, percent, plain
from ownchat.evaluate.replies import is_trained
from ownchat.evaluate.scores import Array, Interval, Statistic, bootstraps, proportion


@dataclass(frozen=True)
class Side:
    """One model's figures, or the difference (without a table). Percent."""

    accuracy: Interval | None
    macro_f1: Interval | None
    confusion: list[list[int]] | None = None  # rows: the right label, as ``names``; columns: the answer, ``other`` last


@dataclass(frozen=True)
class Labels:
    """``names``: the labels that were right or answered, in alphabetical order."""

    names: list[str]
    base: Side
    tuned: Side
    difference: Side


def label_names(records: Sequence[Record]) -> list[str] | None:
    """The labels of classification-like records, each in its most usual spelling; None for records of other kinds.

    Every reply of every conversation counts, so that conversations which end alike are not taken for labels.
    """
    replies = [
        message["content"] or ""
        for item in records
        if item["kind"] == "conversation"
        for message in item["messages"]
        if is_trained(message)
    ]
    if metric_for(replies) != "accuracy":
        return None
    spellings: dict[str, Counter[str]] = {}
    for reply in replies:
        spellings.setdefault(label_key(reply), Counter())[plain(reply)] += 1
    return sorted(counts.most_common(1)[0][0] for counts in spellings.values())


def compare_labels(
    known: Sequence[str],
    references: Sequence[str],
    base: Sequence[str] | None,
    tuned: Sequence[str],
    groups: Sequence[str | None],
    *,
    draws: int = 1000,
) -> Labels | None:
    """``known``: of :func:`label_names`; the others: one label and two answers for each question. None for none.

    ``base`` None: it was not asked, and has no figures; nor is there a difference.

    >>> found = compare_labels(["lost", "late"], ["lost", "late"], ["Late.", "hm"], ["lost", "late"], ["a", "b"])
    >>> found.names, found.base.confusion, found.base.accuracy.value, found.tuned.macro_f1.value
    (['late', 'lost'], [[0, 0, 1], [1, 0, 0]], 0.0, 100.0)
    """
    if not references:
        return None
    if base is None:
        alone = compare_labels(known, references, tuned, tuned, groups, draws=draws)
        return alone and replace(alone, base=Side(None, None), difference=Side(None, None))
    spelling = {label_key(name): name for name in [*references, *known]}  # what is right is a label in any case
    used = {key for text in [*references, *base, *tuned] if (key := label_key(text)) in spelling}
    keys = sorted(used, key=lambda key: spelling[key])
    column = {key: number for number, key in enumerate(keys)}
    right = np.array([column[label_key(text)] for text in references])
    answers = [np.array([column.get(label_key(text), len(keys)) for text in texts]) for texts in (base, tuned)]
    size = len(keys)
    sums = np.concatenate([_counts(right, given, size) for given in answers], axis=1)
    first: Statistic = lambda total: macro_f1(total[..., : 3 * size])  # noqa: E731
    second: Statistic = lambda total: macro_f1(total[..., 3 * size :])  # noqa: E731
    hits = [(right == given).astype(np.float64) for given in answers]
    change: Statistic = lambda total: 100 * (total[..., 1] - total[..., 0]) / total[..., 2]  # noqa: E731
    of_base, of_tuned, gained = bootstraps(sums, [first, second, lambda t: second(t) - first(t)], groups, draws=draws)
    (more_right,) = bootstraps(np.stack([*hits, np.ones(len(right))], axis=1), [change], groups, draws=draws)
    before, after = (
        Side(percent(proportion(hit, groups)), interval, confusion(right, given, size).tolist())
        for hit, interval, given in zip(hits, (of_base, of_tuned), answers, strict=True)
    )
    return Labels([spelling[key] for key in keys], before, after, Side(more_right, gained))


def confusion(right: NDArray[np.int64], given: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Counts, (labels, labels + 1): rows the right label, columns the answer, the last one ``other``."""
    return np.bincount(right * (size + 1) + given, minlength=size * (size + 1)).reshape(size, size + 1)


def _counts(right: NDArray[np.int64], given: NDArray[np.int64], size: int) -> Array:
    """For each record and label whether it was hit, answered, and right: (records, 3 x labels)."""
    of_right, of_given = np.eye(size + 1)[right][:, :-1], np.eye(size + 1)[given][:, :-1]
    return np.stack([of_right * of_given, of_given, of_right], axis=-1).reshape(len(right), 3 * size)


def macro_f1(sums: Array) -> Array:
    """Mean F1 in percent over the labels that were right or answered at least once, from (hit, answered, right)."""
    table = sums.reshape(*sums.shape[:-1], -1, 3)
    hit, either = table[..., 0], table[..., 1] + table[..., 2]
    there = either > 0
    f1 = np.divide(2 * hit, either, out=np.zeros_like(hit), where=there)
    return 100 * f1.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
