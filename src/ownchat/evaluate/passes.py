"""Which rows are scored in one forward pass, so that a beginning that they share is computed once."""

from __future__ import annotations

from collections.abc import Sequence

SAME = 0.9  # of the tokens that the rows of a pass share, which one more row has to open with, too


def passes(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Places of the rows, by passes. Neighbours of which half or more is alike, after what all rows open with, have a
    pass of their own, as a question before its choices; all others share the last one.

    >>> passes([[0, 1, 2, 3], [0, 1, 2, 4], [0, 9, 9], [0, 1, 5, 6]])
    [[0, 1], [2, 3]]
    """
    opening = shared(rows)
    runs: list[list[int]] = []
    known = 0  # tokens that the rows of the last run share
    for place, ids in enumerate(rows):
        alike = shared([rows[runs[-1][0]], ids]) - opening if runs else 0
        least = max(1, (max(len(rows[place - 1]), len(ids)) - opening) // 2)
        if runs and alike >= (least if len(runs[-1]) == 1 else SAME * known):
            runs[-1].append(place)
            known = alike
        else:
            runs.append([place])
    alone = [place for run in runs if len(run) == 1 for place in run]
    return [run for run in runs if len(run) > 1] + ([alone] if alone else [])


def shared(rows: Sequence[Sequence[int]]) -> int:
    """Tokens with which all rows begin; there is one row at least.

    >>> shared([[1, 2, 3], [1, 2, 4]])
    2
    """
    return next((at for at, ids in enumerate(zip(*rows, strict=False)) if len(set(ids)) > 1), min(map(len, rows)))
