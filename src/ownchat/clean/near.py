"""Near duplicates: candidates by MinHash and banding, each proved on the exact shingles, one of each group kept.

Nothing is dropped by an estimate alone. System prompts do not count: one that all records share would make them alike.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from ownchat.clean.shingles import SHINGLE, character_runs, jaccard, split_words
from ownchat.clean.sketches import Sketches, candidates, estimates

SIMILAR = 0.8  # Jaccard similarity from which two records are near duplicates
SIMILAR_CHARACTERS = 0.77  # the same for 5-character shingles, so that other ways of counting do not find more
SHORT_WORDS = 32  # in a shorter record one word matters: pairs of words are compared, not characters
CHAIN = 0.6  # a group of longer records may be a chain; what is less like the kept one starts a group of its own
SIDE = 0.4  # both what was asked and what was answered must be alike: same passage, other question, is no copy;
# of forms (instructions, footers: see sketches) only what else is in them counts here

FAILURES = 24  # comparisons without a find after which a record of a template is left alone
RELATED_ESTIMATE = 0.69  # taken for related without a proof: a pair of .8 is below once in a thousand times
LEAST_ESTIMATE = 0.66  # worth a proof that the similarity of 5-character shingles is .8 (four standard deviations)
_LEAST_RELATED = 0.5  # worth a proof that any similarity is
_CACHE_CHARS = 500_000  # of text whose shingles are held during proofs, about 200 bytes of memory each
_LONGEST_PROOF = 100_000  # characters of each side


# ---------------------------------------------------------------------------------------------------------- proofs


class Compared:
    """One record's shingle sets, made when they are asked for; of very long text the beginning."""

    def __init__(self, asked: str, answered: str, own: tuple[str, str] = ("", "")) -> None:
        self.asked, self.answered = asked[:_LONGEST_PROOF], answered[:_LONGEST_PROOF]
        self.own = (own[0] or self.asked)[:_LONGEST_PROOF], (own[1] or self.answered)[:_LONGEST_PROOF]
        self.text = f"{self.asked} {self.answered}".strip()

    @cached_property
    def characters(self) -> set[str]:
        return character_runs(self.text, SHINGLE)

    @cached_property
    def sides(self) -> tuple[set[str], set[str]]:
        return character_runs(self.own[0], 3), character_runs(self.own[1], 3)

    @cached_property
    def words(self) -> set[str]:
        return set(self._words)

    @cached_property
    def pairs(self) -> set[tuple[str, ...]]:
        return set(pairwise(self._words)) or set(zip(self._words, strict=True))

    @cached_property
    def count(self) -> int:
        return len(self._words)

    @cached_property
    def _words(self) -> list[str]:
        return split_words(self.text)


def similarity(first: Compared, second: Compared) -> float:
    """Jaccard similarity: of 5-character shingles, or of pairs of words where a record is short.

    >>> one = Compared("what atms take this card", "atm support")
    >>> round(similarity(one, Compared("tell me what atms take this card", "atm support")), 2)
    0.75
    """
    if min(first.count, second.count) < SHORT_WORDS:
        return jaccard(first.pairs, second.pairs)
    return jaccard(first.characters, second.characters)


def is_copy(first: Compared, second: Compared) -> bool:
    """Whether one of two records can go: alike as a whole, and not unlike in what is asked or answered."""
    least = SIMILAR if min(first.count, second.count) < SHORT_WORDS else SIMILAR_CHARACTERS
    return similarity(first, second) >= least and _alike_on_both_sides(first, second)


def is_related(first: Compared, second: Compared) -> bool:
    """Whether a split must not part two records: alike in their words, or in their 5-character shingles."""
    return jaccard(first.words, second.words) >= SIMILAR or jaccard(first.characters, second.characters) >= SIMILAR


def _alike_on_both_sides(first: Compared, second: Compared) -> bool:
    return all(jaccard(one, other) >= SIDE for one, other in zip(first.sides, second.sides, strict=True))


# ---------------------------------------------------------------------------------------------------------- search


@dataclass(frozen=True)
class Near:
    """What the search found; indices are those of the sketches."""

    related: np.ndarray  # (n,) smallest index of the records that are alike, through any chain
    kept: np.ndarray  # (n,) the record that stands for this one: itself, when it is no near duplicate
    similarity: np.ndarray  # (n,) float32: Jaccard similarity with the kept one; 1 for itself
    proofs: int  # pairs compared on their exact shingles

    def save(self, path: Path) -> None:
        np.savez(path, related=self.related, kept=self.kept, similarity=self.similarity, proofs=self.proofs)

    @staticmethod
    def load(path: Path) -> Near:
        with np.load(path) as stored:
            return Near(stored["related"], stored["kept"], stored["similarity"], int(stored["proofs"]))


def find_near(sketches: Sketches, members: np.ndarray, can_go: np.ndarray) -> Near:
    """Near duplicates among ``members`` (ascending indices, exact copies left out).

    ``can_go``: flags of the records that may be dropped for one another; the others can only be related.
    """
    related, copies = np.arange(len(sketches)), np.arange(len(sketches))
    failures = np.zeros(len(sketches), np.uint16)
    failed = np.empty(0, np.uint64)
    cache = Cache(sketches)
    proofs = 0
    for first, second in candidates(sketches, members):
        first, second = _apart(first, second, related, copies, failures)
        estimate = estimates(sketches, first, second)
        for place in np.flatnonzero(estimate >= RELATED_ESTIMATE).tolist():
            _join(related, int(first[place]), int(second[place]))
        least = np.where(_roots(related)[first] == _roots(related)[second], LEAST_ESTIMATE, _LEAST_RELATED)
        keys = (first.astype(np.uint64) << np.uint64(32)) | second.astype(np.uint64)
        places = np.minimum(np.searchsorted(failed, keys), max(0, len(failed) - 1))
        worth = (estimate >= least) & ~(failed[places] == keys if len(failed) else np.zeros(len(keys), bool))
        missed = []
        worth = np.flatnonzero(worth)
        worth = worth[np.argsort(keys[worth], kind="stable")]  # pairs of one record together, for the cache
        for one, other, key in zip(first[worth].tolist(), second[worth].tolist(), keys[worth].tolist(), strict=True):
            if _root(copies, one) == _root(copies, other) or min(failures[one], failures[other]) >= FAILURES:
                continue
            proofs += 1
            compared = cache[one], cache[other]
            if can_go[one] and can_go[other] and is_copy(*compared):
                _join(copies, one, other)
                _join(related, one, other)
                continue
            if _root(related, one) != _root(related, other) and is_related(*compared):
                _join(related, one, other)
            missed.append(key)
            failures[[one, other]] += 1
        failed = np.sort(np.concatenate([failed, np.array(missed, np.uint64)]))
    kept, likeness = _choose(_roots(copies), sketches, cache)
    return Near(_roots(related), kept, likeness, proofs)


def _apart(
    first: np.ndarray, second: np.ndarray, related: np.ndarray, copies: np.ndarray, failures: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that could still join something."""
    roots = _roots(copies)
    apart = (roots[first] != roots[second]) & (np.minimum(failures[first], failures[second]) < FAILURES)
    return first[apart], second[apart]


def _choose(copies: np.ndarray, sketches: Sketches, cache: Cache) -> tuple[np.ndarray, np.ndarray]:
    """Who stands for whom: in each group the longest, then those too unlike it in the same way."""
    kept, likeness = np.arange(len(copies)), np.ones(len(copies), np.float32)
    grouped = np.flatnonzero(np.bincount(copies, minlength=len(copies))[copies] > 1)
    grouped = grouped[np.lexsort((grouped, -sketches.lengths[grouped], copies[grouped]))]
    borders = np.flatnonzero(np.diff(copies[grouped], prepend=-1, append=-1)) if len(grouped) else np.empty(0, np.int64)
    for start, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        left = grouped[start:end].tolist()
        while left:
            best, *others = left
            left = []
            for one in others:
                short = min(cache[best].count, cache[one].count) < SHORT_WORDS
                found = similarity(cache[best], cache[one])
                if found >= (SIMILAR if short else CHAIN) and _alike_on_both_sides(cache[best], cache[one]):
                    kept[one], likeness[one] = best, found
                else:
                    left.append(one)
    return kept, likeness


class Cache:
    """Shingle sets of the records compared last."""

    def __init__(self, sketches: Sketches) -> None:
        self._sketches = sketches
        self._held: OrderedDict[int, Compared] = OrderedDict()
        self._chars = 0

    def __getitem__(self, index: int) -> Compared:
        if index in self._held:
            self._held.move_to_end(index)
            return self._held[index]
        made = self._held[index] = Compared(*self._sketches.texts(index), self._sketches.texts(index, "own"))
        self._chars += len(made.text)
        while self._chars > _CACHE_CHARS and len(self._held) > 2:
            self._chars -= len(self._held.popitem(last=False)[1].text)
        return made


# ------------------------------------------------------------------------------------------------------ union-find


def _root(parent: np.ndarray, index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return index


def _roots(parent: np.ndarray) -> np.ndarray:
    """The root of everyone, written into ``parent`` as well."""
    while not np.array_equal(above := parent[parent], parent):
        parent[:] = above
    return parent.copy()


def _join(parent: np.ndarray, one: int, other: int) -> None:
    one, other = _root(parent, one), _root(parent, other)
    parent[max(one, other)] = min(one, other)
