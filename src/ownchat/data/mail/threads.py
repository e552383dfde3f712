"""Which mail answers which, and the lines of talk that follow from it.

The idea is Jamie Zawinski's (https://www.jwz.org/doc/threading.html): Message-ID, In-Reply-To and References make a
forest; what has none of them is joined by its subject, here only where the same people write within two weeks. A
thread that branches is several talks: each branch is one, which begins with what its first mail answers.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from ownchat.data.mail.spool import NO_TIME, Spool

WITHIN_SECONDS = 14 * 86_400  # between mails that only their subject joins


class Chain(NamedTuple):
    """Mails each of which answers the one before. ``parent``: the mail that the first one answers, -1: unknown."""

    root: int  # the first mail of the thread
    branch: int  # 0: the thread's own line
    mails: list[int]
    parent: int


class Forest:
    """The threads of a spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._parent = array("q", [-1]) * len(spool)
        for mail in range(len(spool)):
            if spool.taken[mail]:
                self._parent[mail] = _named_parent(spool, mail)
        _join_by_subject(spool, self._parent)
        self._children: dict[int, list[int]] = defaultdict(list)
        for mail in range(len(spool)):
            if spool.taken[mail] and self._parent[mail] >= 0:
                self._children[self._parent[mail]].append(mail)

    def is_root(self, mail: int) -> bool:
        return bool(self._spool.taken[mail]) and self._parent[mail] < 0

    def chains(self, root: int) -> Iterator[Chain]:
        """The talks of one thread: at each branching the longest one goes on, the others are their own."""
        order = [root]
        for mail in order:  # grows while it is walked
            order += self._children.get(mail, ())
        height: dict[int, int] = {}
        for mail in reversed(order):
            height[mail] = 1 + max((height[child] for child in self._children.get(mail, ())), default=0)
        starts, branch = [(root, -1)], 0
        while starts:
            mail, parent = starts.pop(0)
            mails = [mail]
            while children := self._children.get(mails[-1]):
                children = sorted(children, key=lambda child: (-height[child], self._spool.time[child], child))
                starts += [(child, mails[-1]) for child in children[1:]]
                mails.append(children[0])
            yield Chain(root, branch, mails, parent)
            branch += 1


# ----------------------------------------------------------------------------------------------------------------


def _named_parent(spool: Spool, mail: int) -> int:
    """The nearest mail above it that is here."""
    node = spool.node_parent[spool.node[mail]]
    for _ in range(1000):
        if node < 0:
            break
        if (found := spool.node_mail[node]) >= 0:
            return found if found != mail else -1
        node = spool.node_parent[node]
    return -1


def _join_by_subject(spool: Spool, parent: array[int]) -> None:
    """Replies that name no mail: the last mail before them with their subject, from somebody they know."""
    lonely: dict[int, list[int]] = defaultdict(list)
    for mail in range(len(spool)):
        if spool.taken[mail] and spool.is_reply[mail] and spool.node_parent[spool.node[mail]] < 0:
            lonely[spool.subject[mail]].append(mail)
    if not lonely:
        return
    same: dict[int, list[int]] = defaultdict(list)
    for mail in range(len(spool)):
        if spool.taken[mail] and spool.subject[mail] in lonely:
            same[spool.subject[mail]].append(mail)
    for subject, replies in lonely.items():
        others = sorted(same[subject], key=lambda mail: (spool.time[mail], mail))
        for mail in replies:
            place = others.index(mail)
            for other in reversed(others[max(0, place - 50) : place]):
                if _belong(spool, other, mail) and not _is_above(parent, mail, other):
                    parent[mail] = other
                    break


def _belong(spool: Spool, earlier: int, later: int) -> bool:
    time = spool.time[earlier], spool.time[later]
    near = NO_TIME not in time and time[1] - time[0] <= WITHIN_SECONDS
    return (
        near
        and spool.sender[earlier] != spool.sender[later]
        and bool(spool.people_of(earlier) & spool.people_of(later))
    )


def _is_above(parent: array[int], mail: int, other: int) -> bool:
    """Whether ``mail`` stands above ``other`` already: a link would make a circle."""
    for _ in range(10_000):
        if other == mail:
            return True
        if other < 0:
            return False
        other = parent[other]
    return True
