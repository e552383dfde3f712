"""Splits that the data's owner gave (:mod:`ownchat.data.given`): which records they are, and what is done with copies.

Where any record is given as ``valid`` or ``test``, all others train. A record that is a copy of one that trains, exact
or near, is left out of the split that it was given to: it would be an examination on what was shown. Where only one of
the two is given, the other takes its part of it.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.artifacts import SPLITS
from ownchat.clean.signatures import Signatures
from ownchat.clean.split import TEST, TRAIN, VALID, Dealt, assign, components, connected
from ownchat.data.given import TAGS
from ownchat.data.records import read_batches
from ownchat.errors import DataError

RULE = "also in another split"
_RANKS = np.array([0, 2, 1])  # of train, valid and test: of copies the one of the lowest rank stays
Pair = tuple[int, int]


def given_splits(folders: Sequence[Path]) -> np.ndarray:
    """For each record of the folders, in order, the split it was given to; train where nobody said anything."""
    parts = [np.empty(0, np.int64)]
    tags, codes = pa.array(list(TAGS.values())), np.array([SPLITS.index(split) for split in TAGS])
    for folder in folders:
        for batch in read_batches(folder, rows=65_536, columns=["tags"]):
            splits = np.full(len(batch), TRAIN)
            found = pc.index_in(batch.column("tags").flatten(), value_set=tags)
            if found.null_count < len(found):
                rows = pc.list_parent_indices(batch.column("tags")).filter(pc.is_valid(found))
                splits[rows.to_numpy()] = codes[found.drop_null().to_numpy()]
            parts.append(splits)
    return np.concatenate(parts)


def ranks_of(given: np.ndarray) -> np.ndarray:
    """Of copies in several splits the one of the lowest rank stays."""
    return _RANKS[given]


def first_of_training(given: np.ndarray, records: np.ndarray) -> np.ndarray:
    """Records in the order in which the first of several copies is to be found: those that train before others."""
    return records[np.argsort(_RANKS[given[records]], kind="stable")]


def copies_across(
    given: np.ndarray, copy_of: np.ndarray, kept: np.ndarray, lost: Container[int], apart: Container[Pair]
) -> dict[int, int]:
    """Records whose copy is in another split, and that copy, which is not ``lost``.

    ``copy_of``: for each record the exact copy that stands for it; ``kept``: for each of those the near one, never of a
    higher rank than itself. ``apart``: pairs (the smaller index first) that are no copies, however alike they are.

    >>> copies_across(np.array([1, 0, 0, 1]), np.array([1, 1, 2, 3]), np.array([0, 2, 2, 3]), {}, {})
    {0: 2}
    """
    ranks, stands = _RANKS[given], kept[copy_of]
    found = {}
    for index in np.flatnonzero(ranks > ranks[stands]).tolist():
        one, best = int(copy_of[index]), int(stands[index])
        if (min(one, best), max(one, best)) in apart:
            continue
        if best in lost:  # another one like it may stay
            like_it = np.flatnonzero((stands == best) & (ranks < ranks[index]))
            like_it = like_it[np.argsort(ranks[like_it], kind="stable")]
            best = next((other for other in like_it.tolist() if other not in lost), index)
        if best != index:
            found[index] = best
    return found


def deal_given(
    signatures: Signatures,
    linked: np.ndarray,
    related: np.ndarray,
    given: np.ndarray,
    *,
    valid_share: float,
    test_share: float,
    seed: int,
) -> Dealt:
    """Every record in the split it was given to. ``linked``, ``related``: as in :func:`~ownchat.clean.split.deal`.

    Of a split that nobody gave: its part of the other one, in the ratio of the two shares; groups stay together where
    there are two. Raises :class:`~ownchat.errors.DataError` when nothing is left to learn, or less than one record for
    each of the two.
    """
    splits = given.copy()
    labels = components(signatures, connected([linked + 1, related + 1]))
    if not (splits == TRAIN).any():
        raise DataError("no record is left to learn: all were given as valid or test", fix="name fewer files in --map")
    missing = [split for split in (VALID, TEST) if not (splits == split).any()]
    if missing:
        places = np.flatnonzero(splits != TRAIN)
        if len(places) < 2:
            left = "1 is" if len(places) else "none is"
            raise DataError(
                f"of the records that were given for validation {left} left that is no copy of what is learned, and "
                "two are needed: one to choose the checkpoint by, one for the report",
                fix="give more records, and such that are not learned",
            )  # fmt: skip
        share = (test_share if missing == [TEST] else valid_share) / (valid_share + test_share)
        groups = labels[places] if len(np.unique(labels[places])) > 1 else places
        dealt = assign(groups, signatures.ids[places], valid_share=0, test_share=share, seed=seed, needed=(TEST,))
        splits[places[dealt == TEST]] = missing[0]
    return Dealt(splits, labels, np.empty(0, np.uint64))
