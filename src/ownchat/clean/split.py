"""Which records are copies, which belong together, and which of the three splits they go to.

What shares a customer or thread, a question, an answer or a long reply, or is nearly the same, must not stand on both
sides of a split: the model would be examined on what it was shown. So records are joined into components, which are
dealt out whole. Where stock replies would join almost everything, they join nothing and are taken out of the records
for validation and test instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ownchat.artifacts import SPLITS
from ownchat.clean.signatures import Order, Signatures, in_order
from ownchat.errors import DataError

TRAIN, VALID, TEST = range(3)
BOILERPLATE_SHARE = 0.05  # an answer that stands in more of the records than this is a stock phrase: it joins nothing
STOCK_SHARES = (0.01, 0.001, 0.0)  # of the records that a long reply stands in to be taken for stock, tried in turn
_FILLED = 0.8  # of its share that a split should reach
_HALF = 0.5  # where it does not reach as much, relations that are less than copies are parted

# Rules that drop records, and the setting without which they would not.
_SWITCHES = {
    "language": "clean.languages=[]", "too short": "clean.min_words=0", "too long": "clean.max_words=null",
    "quality": "clean.quality_rules=[]", "off-topic": "clean.off_topic=flag", "toxic": "clean.toxicity=flag",
    "greetings only": "clean.greetings=false", "contaminated": "clean.decontaminate=[]",
    "contradicted": "clean.contradictions=flag",
}  # fmt: skip
_COPIES = ("exact duplicate", "near duplicate")

Links = tuple[np.ndarray, np.ndarray]  # records, and a key for each: equal keys join


def first_copies(content: np.ndarray, order: Order = in_order) -> np.ndarray:
    """For each record the index of the first one with the same content: itself, when it is no copy.

    >>> first_copies(np.array([[1, 1], [2, 2], [1, 1]], np.uint64)).tolist()
    [0, 1, 0]
    """
    ordered = order(content[:, 0], content[:, 1])
    starts = np.ones(len(content), bool)
    starts[1:] = (content[ordered[1:]] != content[ordered[:-1]]).any(axis=1)
    first = np.empty(len(content), np.int64)
    first[ordered] = ordered[starts][np.cumsum(starts) - 1]
    return first


def components(
    signatures: Signatures, related: np.ndarray | None = None, stock: np.ndarray | None = None
) -> np.ndarray:
    """A number for each record; records that belong together have the same: the smallest index among them.

    ``related``: labels of records that are nearly the same. ``stock``: keys of long replies that join nothing.
    """
    answer = signatures.answer.copy()
    _, inverse, counts = np.unique(answer, return_inverse=True, return_counts=True)
    answer[counts[inverse] > max(10, BOILERPLATE_SHARE * len(answer))] = 0
    rows, replies = signatures.reply_rows(), signatures.replies
    if stock is not None and len(stock):
        joins = ~np.isin(replies, stock)
        rows, replies = rows[joins], replies[joins]
    keys = [signatures.group, signatures.question, answer]
    return connected(keys if related is None else [*keys, related + 1], (rows, replies))


def stock_replies(signatures: Signatures, share: float) -> np.ndarray:
    """Keys of the long replies that stand in more than ``share`` of the records, and in two at least."""
    rows, replies = signatures.reply_rows(), signatures.replies
    once = np.unique(np.stack([replies, rows.astype(np.uint64)], axis=1), axis=0)[:, 0]
    found, counts = np.unique(once, return_counts=True)
    return found[counts > max(1, share * len(signatures))]


@dataclass(frozen=True)
class Dealt:
    """The split of each record, its component, and the replies that valid and test must not keep."""

    splits: np.ndarray
    labels: np.ndarray
    stock: np.ndarray


def deal(
    signatures: Signatures,
    linked: np.ndarray,
    related: np.ndarray,
    *,
    valid_share: float,
    test_share: float,
    seed: int,
    needed: tuple[int, ...],
    dropped: Mapping[str, int] | None = None,
) -> Dealt:
    """Components and their splits. ``linked``: labels of records that belong together for other reasons; ``related``:
    labels of those that are somewhat alike, which are parted where three splits could not be had otherwise.

    When one component is so large that valid or test stay below four fifths of their share, long replies that stand in
    1 % of the records no longer join, then those in one of a thousand, then all. Raises as :func:`assign` does.
    """
    best: Dealt | None = None
    problem: DataError | None = None
    best_filled = -1.0
    wanted = {VALID: valid_share * len(linked), TEST: test_share * len(linked)}
    joined = connected([linked + 1, related + 1])
    for together, share in [(joined, None), *((joined, share) for share in STOCK_SHARES), (linked, None)]:
        if together is linked and best_filled >= _HALF:
            break
        stock = np.empty(0, np.uint64) if share is None else stock_replies(signatures, share)
        labels = components(signatures, together, stock)
        try:
            splits = assign(
                labels, signatures.ids, valid_share=valid_share, test_share=test_share, seed=seed, needed=needed,
                dropped=dropped,
            )  # fmt: skip
        except DataError as error:
            problem = problem or error
            continue
        filled = min(int((splits == split).sum()) / max(1.0, size) for split, size in wanted.items())
        if filled > best_filled:
            best, best_filled = Dealt(splits, labels, stock), filled
        if filled >= _FILLED or not needed:
            break
    if best is None:
        assert problem is not None
        raise problem
    return best


def what_dropped(rules: Mapping[str, int]) -> str:
    """The rules that dropped records, those that took most first.

    >>> what_dropped({"empty": 1, "language": 197})
    'language 197, empty 1'
    """
    return ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items(), key=lambda item: (-item[1], item[0])))


def way_out(rules: Mapping[str, int]) -> str:
    """What to do when rules dropped (nearly) everything.

    >>> way_out({"language": 197, "exact duplicate": 1})
    'switch off what dropped most: clean.languages=[]; or add data'
    >>> way_out({"exact duplicate": 199})
    'add data that is no copy: copies must stand in one split, also where they are kept'
    """
    most = sorted(rules, key=lambda rule: (-rules[rule], rule))
    named = [rule for rule in most if 10 * rules[rule] >= sum(rules.values())]  # a tenth, or more
    switches = list(dict.fromkeys(_SWITCHES[rule.split(":")[0]] for rule in named if rule.split(":")[0] in _SWITCHES))
    advice = [f"switch off what dropped most: {', '.join(switches)}"] if switches else []
    if any(rule in _COPIES for rule in named):
        return "; ".join(
            [*advice, "add data that is no copy: copies must stand in one split, also where they are kept"]
        )
    return (
        "; or ".join([*advice, "add data"])
        if advice
        else "look at the files: what was dropped held nothing to learn from"
    )


def connected(keys: Sequence[np.ndarray], *more: Links) -> np.ndarray:
    """Connected components of records that share a key (0: no key), as the smallest index in each.

    ``more``: keys of which a record may have any number.

    Vectorised union-find: each round hooks whole components to the smallest that they touch (Shiloach and Vishkin
    1982), so that even a long chain needs few rounds.

    >>> a, b = np.array([1, 1, 2, 0], np.uint64), np.array([0, 5, 5, 0], np.uint64)
    >>> connected([a, b]).tolist()
    [0, 0, 0, 3]
    """
    parent = np.arange(len(keys[0]))
    inverses = []
    for members, key in [*((np.flatnonzero(key), key[key != 0]) for key in keys), *more]:
        _, inverse = np.unique(key, return_inverse=True)
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
    dropped: Mapping[str, int] | None = None,
) -> np.ndarray:
    """The split of each record: 0 train, 1 valid, 2 test; components stay whole.

    Components come in an order that depends on ``seed`` and their smallest id alone; test and valid take what fits
    into their share, the largest component always trains. ``needed``: splits that must not stay empty. ``dropped``: how
    many records each rule took before. Raises :class:`~ownchat.errors.DataError` when there are fewer components than
    splits.
    """
    _, component, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    component = component.ravel()
    if len(sizes) < 1 + len(needed):
        lost, total = what_dropped(dropped or {}), sum((dropped or {}).values())
        grouping = "if a column was wrongly taken for the customer or thread, say which one is: --map group=COLUMN"
        fix = f"add data; or, {grouping}"
        if total > len(ids):
            fix = way_out(dropped or {}) + (f"; or, {grouping}" if len(ids) > len(needed) else "")
        groups = "1 group that belongs together" if len(sizes) == 1 else f"{len(sizes)} groups that belong together"
        raise DataError(
            f"fewer rows than three splits need: {len(ids)} record{'s' if len(ids) != 1 else ''} in {groups} "
            f"(same customer or thread, same question or same answer); {', '.join(SPLITS)} need one each"
            + (f"; {total} of {total + len(ids)} records were dropped: {lost}" if total else ""),
            fix=fix,
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
