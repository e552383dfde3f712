"""Two models on the same test records: is their difference more than chance?

Each record's score is kept beside the report, so that runs are compared without loading a model again. The test is
paired: records that are hard for both say nothing about the difference, and leave it in a paired interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ownchat.artifacts import read_json, write_json
from ownchat.evaluate.scores import Array, Interval, bootstrap, group_index, ratio

NAME = "scores.json"


@dataclass(frozen=True)
class RecordScores:
    """What a tuned model made of the test records, one entry each; no text and no name of a group."""

    ids: Sequence[str]
    groups: Sequence[int]  # records of one customer or thread have one number
    tokens: Sequence[int]  # trained ones
    num_bytes: Sequence[int]  # of the replies in UTF-8
    nll: Sequence[float]  # nats over these tokens

    def save(self, report: Path) -> None:
        write_json(report / NAME, asdict(self))


@dataclass(frozen=True)
class Paired:
    """Both models on the records that they share. ``difference``: second - first; less is better in both measures."""

    measure: Literal["loss", "bits_per_byte"]  # bits per byte where the tokens differ: losses then do not compare
    records: int
    groups: int
    first: Interval
    second: Interval
    difference: Interval

    @property
    def verdict(self) -> Literal["better", "worse", "no clear difference"]:
        """Of the second: clear when zero lies outside the 95 % interval, and there is more than one group."""
        if self.groups < 2:
            return "no clear difference"
        return "better" if self.difference.below(0) else "worse" if self.difference.above(0) else "no clear difference"


def record_scores(
    ids: Sequence[str], groups: Sequence[str | None], tokens: Array, num_bytes: Array, nll: Array
) -> RecordScores:
    """From what was measured; names of groups become numbers."""
    return RecordScores(
        list(ids),
        group_index(groups).tolist(),
        tokens.astype(int).tolist(),
        num_bytes.astype(int).tolist(),
        [float(value) for value in nll],
    )


def load(report: Path) -> RecordScores | None:
    """The scores beside a report; None for a report that was made without them."""
    return RecordScores(**read_json(report / NAME)) if (report / NAME).is_file() else None


def paired(first: RecordScores, second: RecordScores, *, draws: int = 1000, seed: int = 0) -> Paired | None:
    """The paired bootstrap, by the first one's groups, on the records of both; None when they share none.

    >>> a = RecordScores(["x", "y"], [0, 1], [10, 10], [40, 40], [30.0, 20.0])
    >>> b = RecordScores(["y", "x"], [0, 1], [10, 10], [40, 40], [10.0, 20.0])
    >>> found = paired(a, b)
    >>> found.verdict, found.difference
    ('better', Interval(value=-1.0, low=-1.0, high=-1.0))
    """
    place = {id: at for at, id in enumerate(second.ids)}
    mine = [at for at, id in enumerate(first.ids) if id in place]
    if not mine:
        return None
    theirs = [place[first.ids[at]] for at in mine]
    same = all(first.tokens[a] == second.tokens[b] for a, b in zip(mine, theirs, strict=True))
    columns = []
    for scores, rows in ((first, mine), (second, theirs)):
        units = scores.tokens if same else [size * math.log(2) for size in scores.num_bytes]
        columns += [[scores.nll[at] for at in rows], [float(units[at]) for at in rows]]
    sums = np.array(columns).T
    groups = [str(first.groups[at]) for at in mine]
    views = (
        lambda total: ratio(total[..., :2]),
        lambda total: ratio(total[..., 2:]),
        lambda total: ratio(total[..., 2:]) - ratio(total[..., :2]),
    )
    found = [bootstrap(sums, view, groups, draws=draws, seed=seed) for view in views]
    if any(interval is None for interval in found):
        return None
    before, after, difference = (interval for interval in found if interval is not None)
    return Paired(
        "loss" if same else "bits_per_byte", len(mine), len(set(groups)), before, after, difference
    )  # fmt: skip
