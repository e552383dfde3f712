"""Whether the difference between two records that are much alike is an accident: a slip, or what the record is about.

"Top up my acount by card" is "top up my account by card" again; "top up my account by cheque" is not. Measured in bits
against the other records, so that it holds for any language and needs no list of words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

NEW_WORD = 4.0  # bits; fitted by logistic regression, with what stands against it (near.DOUBLING), to pairs with a
# planted difference and natural pairs among tickets, orders and questions
_MOST_NEW = 3

Joint = tuple[str, str]


class Own(NamedTuple):
    """What one record of a pair has and the other has not."""

    words: set[str]
    joints: set[Joint]


def joints(words: Sequence[str]) -> set[Joint]:
    """Words side by side, and the empty word at both ends.

    >>> sorted(joints(["top", "up"]))
    [('', 'top'), ('top', 'up'), ('up', '')]
    """
    return set(pairwise(["", *words, ""]))


def accidents(pairs: Sequence[tuple[Own, Own]], spoken: Iterable[list[str]]) -> list[float]:
    """How surely the difference of each pair is an accident, in bits. ``spoken``: the words of the records, or of some.

    For each two words side by side in one record of the pair and in no other: the logarithm of how many records would
    have them so by chance; of the two records' sums the larger. And 4 bits for a word that nobody else uses (three of
    them at most, no numbers); where both records have such a word only for those that are misspelt ones of the other's.
    """
    stands = {joint: 0 for pair in pairs for own in pair for joint in own.joints}
    uses = {word: 0 for joint in stands for word in joint} | {
        word: 0 for pair in pairs for own in pair for word in own.words
    }
    count = 0
    for words in spoken:
        count += 1
        for word in uses.keys() & {"", *words}:
            uses[word] += 1
        for joint in stands.keys() & joints(words):
            stands[joint] += 1

    def surprise(joint: Joint) -> float:
        expected = max(1, uses[joint[0]]) * max(1, uses[joint[1]]) / max(1, count)
        return math.log2(expected) if stands[joint] <= 1 and expected > 1 else 0.0

    def new(own: Own) -> list[str]:
        return [word for word in own.words if uses[word] <= 1 and not has_number([word])]

    bits = []
    for one, other in pairs:
        slips = len(new(one)) + len(new(other))
        if new(one) and new(other):  # a name here and another one there are no slips
            slips = sum(any(is_misspelt(word, right) for right in other.words) for word in new(one))
            slips += sum(any(is_misspelt(word, right) for right in one.words) for word in new(other))
        # Sorted: sums of floats depend on their order, sets of strings have another one in each process.
        surprises = (sum(map(surprise, sorted(own.joints))) for own in (one, other))
        bits.append(max(surprises) + NEW_WORD * min(_MOST_NEW, slips))
    return bits


def is_misspelt(word: str, right: str) -> bool:
    """Whether two words are one letter apart: exchanged, left out, added, or swapped with the next.

    >>> is_misspelt("acount", "account"), is_misspelt("acocunt", "account"), is_misspelt("card", "cash")
    (True, True, False)
    """
    for _ in range(2):  # what both begin with goes, then what both end with
        same = next(
            (i for i, (a, b) in enumerate(zip(word, right, strict=False)) if a != b), min(len(word), len(right))
        )
        word, right = word[same:][::-1], right[same:][::-1]
    return max(len(word), len(right)) <= 1 or (len(word) == 2 and word == right[::-1])


def has_number(words: Iterable[str]) -> bool:
    """Whether one of the words is a number."""
    return any(word.isdecimal() for word in words)
