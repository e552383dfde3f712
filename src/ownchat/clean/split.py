"""Which records are copies, which belong together, and which of the three splits they go to.

What shares a customer or thread, a question, or an answer must not stand on both sides of a split: the model would be
examined on what it was shown. So records are joined into components, and components are dealt out whole.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from ownchat.artifacts import SPLITS
from ownchat.clean.signatures import Signatures
from ownchat.errors import DataError

TRAIN, VALID, TEST = range(3)
BOILERPLATE_SHARE = 0.05  # an answer that stands in more of the records than this is a stock phrase: it joins nothing


def first_copies(content: np.ndarray) -> np.ndarray:
    """For each record the index of the first one with the same content: itself, when it is no copy.

    >>> first_copies(np.array([[1, 1], [2, 2], [1, 1]], np.uint64)).tolist()
    [0, 1, 0]
    """
    pairs = np.ascontiguousarray(content).view([("high", "<u8"), ("low", "<u8")]).ravel()
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    return first[inverse.ravel()]


def components(signatures: Signatures) -> np.ndarray:
    """A number for each record; records that belong together have the same: the smallest index among them."""
    answer = signatures.answer.copy()
    _, inverse, counts = np.unique(answer, return_inverse=True, return_counts=True)
    answer[counts[inverse] > max(10, BOILERPLATE_SHARE * len(answer))] = 0
    return connected([signatures.group, signatures.question, answer])


def connected(keys: list[np.ndarray]) -> np.ndarray:
    """Connected components of records that share a key (0: no key), as the smallest index in each.

    Vectorised union-find: each round hooks whole components to the smallest that they touch (Shiloach and Vishkin
    1982), so that even a long chain needs few rounds.

    >>> a, b = np.array([1, 1, 2, 0], np.uint64), np.array([0, 5, 5, 0], np.uint64)
    >>> connected([a, b]).tolist()
    [0, 0, 0, 3]
    """
    parent = np.arange(len(keys[0]))
    inverses = []
    for key in keys:
        members = np.flatnonzero(key)
        _, inverse = np.unique(key[members], return_inverse=True)
        if len(members):
            inverses.append((members, inverse.ravel()))
    while True:
        before = parent.copy()
        for members, inverse in inverses:
            smallest = np.full(inverse.max() + 1, len(parent))
            np.minimum.at(smallest, inverse, parent[members])
            np.minimum.at(parent, parent[members], smallest[inverse])
            while not np.array_equal(above := parent[parent], parent):
                parent = above
        if np.array_equal(before, parent):
            return parent


def assign(
    labels: np.ndarray,
    ids: np.ndarray,
    *,
    valid_share: float,
    test_share: float,
    seed: int,
    needed: tuple[int, ...] = (VALID, TEST),
) -> np.ndarray:
    """The split of each record: 0 train, 1 valid, 2 test; components stay whole.

    Components come in an order that depends on ``seed`` and their smallest id alone; test and valid take what fits
    into their share, the largest component always trains. ``needed``: splits that must not stay empty. Raises
    :class:`~ownchat.errors.DataError` when there are fewer components than splits.
    """
    _, component, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    component = component.ravel()
    if len(sizes) < 1 + len(needed):
        groups = "1 group that belongs together" if len(sizes) == 1 else f"{len(sizes)} groups that belong together"
        raise DataError(
            f"fewer rows than three splits need: {len(ids)} record{'s' if len(ids) != 1 else ''} in {groups} "
            f"(same customer or thread, same question or same answer); {', '.join(SPLITS)} need one each",
            fix="add data; or, if a column was wrongly taken for the customer or thread, say which one is: "
            "--map group=COLUMN",
        )
    order = np.argsort(ids, kind="stable")
    seen, smallest = np.unique(component[order], return_index=True)
    names = ids[order][smallest][np.argsort(seen)]
    shuffled = sorted(range(len(sizes)), key=lambda one: blake2b(b"%d\0%s" % (seed, names[one])).digest())
    splits = np.full(len(sizes), TRAIN)
    largest = max(range(len(sizes)), key=lambda one: (sizes[one], names[one]))
    room = {TEST: round(test_share * len(ids)), VALID: round(valid_share * len(ids))}
    for one in shuffled:
        for split in sorted(room, key=lambda split: -room[split]):
            if one != largest and splits[one] == TRAIN and sizes[one] <= room[split]:
                splits[one] = split
                room[split] -= int(sizes[one])
    for split in needed:
        if not (splits == split).any():  # too small a share, or every component is larger: take the smallest left
            spare = [one for one in shuffled if one != largest]
            spare = [one for one in spare if splits[one] == TRAIN or (splits == splits[one]).sum() > 1]
            splits[min(spare, key=lambda one: (splits[one] != TRAIN, sizes[one]))] = split
    return splits[component]
