"""Near duplicates: candidates by MinHash and banding, each proved on the exact shingles, one of each group kept.

Nothing is dropped by an estimate alone. System prompts do not count: one that all records share would make them alike.

What is alike by a strict measure is a copy. What is alike by a looser one only (a word exchanged, misspelt words,
another order) is a copy where nothing else is like it. In a crowd of records that all say about the same ("top up by
card", "top up by cheque") a single word may be what tells them apart: there it takes evidence that the difference is an
accident, words that nobody else uses or that are common and never stand side by side elsewhere.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from ownchat.clean.evidence import Own, accidents, has_number, joints
from ownchat.clean.shingles import SHINGLE, character_runs, jaccard, split_words
from ownchat.clean.signatures import Order, in_order
from ownchat.clean.sketches import Sketches, candidates, estimates

SIMILAR = 0.8  # Jaccard similarity from which two records are near duplicates
SIMILAR_CHARACTERS = 0.77  # the same for 5-character shingles, so that other ways of counting do not find more
SIMILAR_WORDS = 0.75  # the same for words where splits are concerned: who counts find_phone as one word finds more
SHORT_WORDS = 32  # in a shorter record one word matters: pairs of words are compared, not characters
CHAIN = 0.6  # a group of longer records may be a chain; what is less like the kept one starts a group of its own
SIDE = 0.4  # both what was asked and what was answered must be alike: same passage, other question, is no copy;
# of forms (instructions, footers: see sketches) only what else is in them counts here

FAILURES = 24  # comparisons without a find after which a record of a template is left alone
FAILURES_UNLIKELY = 8  # the same for pairs that are unlikely to be copies
FAILURES_WORDS = 48  # the same for pairs that are alike by their words' estimate alone
RELATED_ESTIMATE = 0.69  # taken for related without a proof: a pair of .8 is below once in a thousand times
LEAST_ESTIMATE = 0.66  # worth a proof that the similarity of 5-character shingles is .8 (four standard deviations)
LOOSE_ESTIMATE = 0.45  # worth a proof that any similarity is: one word of nine exchanged leaves about .6
WORDS_ESTIMATE = 0.61  # worth a proof, of words; of 30,000 pairs of .8 one is below
_LEAST_WORDS = 0.5  # similarity of the words of longer records below which no other measure comes near .8
_CACHE_CHARS = 500_000  # of text whose shingles are held during proofs, about 200 bytes of memory each
_LONGEST_PROOF = 100_000  # characters of each side

NEIGHBOUR = 0.5  # similarity by any measure from which a record belongs to another one's crowd
CROWD = 9  # neighbours from which only what may be a copy by the strict measure is looked at
DOUBLING = 2.0  # bits of evidence that a copy needs for each doubling of the crowd
_EVIDENCE_CHARS = 5_000_000  # of text in which words and pairs of words are counted
_DOUBTS = 20_000  # pairs judged at a time
_LIKELY, _UNLIKELY, _WORDS = range(3)  # kinds of pairs by what made them candidates
_LIMITS = (FAILURES, FAILURES_UNLIKELY, FAILURES_WORDS)


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
    def triples(self) -> set[str]:
        return character_runs(self.text, 3)

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

    def own_to(self, other: Compared) -> Own:
        """What stands in this record and not in the other one."""
        return Own(self.words - other.words, joints(self._words) - joints(other._words))

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


def likeness(first: Compared, second: Compared) -> float:
    """The largest Jaccard similarity: of words, pairs of words, runs of 5 characters, in short records also of 3.

    >>> one = Compared("what atms take this card", "atm support")
    >>> round(likeness(one, Compared("what atmss take this card", "atm support")), 2)
    0.82
    """
    short = min(first.count, second.count) < SHORT_WORDS
    found = jaccard(first.words, second.words)
    if not short and found < _LEAST_WORDS:
        return found
    found = max(found, jaccard(first.pairs, second.pairs), jaccard(first.characters, second.characters))
    if short and found < SIMILAR:
        found = max(found, jaccard(first.triples, second.triples))
    return found


def is_copy(first: Compared, second: Compared) -> bool:
    """Whether one of two records can go, whatever else there is: alike by the strict measure and on both sides."""
    least = SIMILAR if min(first.count, second.count) < SHORT_WORDS else SIMILAR_CHARACTERS
    return similarity(first, second) >= least and _alike_on_both_sides(first, second)


def is_loose_copy(first: Compared, second: Compared) -> bool:
    """Whether one of two records can go where no others are like them: alike by any measure, and on both sides.

    Of short records that differ in a number none is a copy of the other.
    """
    if likeness(first, second) < SIMILAR or not _alike_on_both_sides(first, second):
        return False
    if min(first.count, second.count) >= SHORT_WORDS:
        return True
    return not (has_number(first.words - second.words) and has_number(second.words - first.words))


def is_related(first: Compared, second: Compared) -> bool:
    """Whether a split must not part two records: alike by any measure."""
    return likeness(first, second) >= SIMILAR or jaccard(first.words, second.words) >= SIMILAR_WORDS


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


def find_near(
    sketches: Sketches, members: np.ndarray, can_go: np.ndarray, order: Order = in_order,
    ranks: np.ndarray | None = None, *, all_stay: bool = False,
) -> Near:  # fmt: skip
    """Near duplicates among ``members`` (ascending indices, exact copies left out).

    ``can_go``: flags of the records that may be dropped for one another; the others can only be related. ``ranks``:
    none stands for one of a lower rank. ``all_stay``: nobody is dropped for one of the own rank, so that what is a copy
    of any record of a lower rank gets one of those, not only what is one of a record that stands for others.
    """
    ranks = np.zeros(len(sketches), np.int64) if ranks is None else ranks
    search = _Search(sketches, can_go)
    for words in (False, True):
        for first, second in candidates(sketches, members, order, words=words):
            search.look(first, second, words=words)
    accepted = _accepted(search, sketches, members)
    for one, other in sorted(accepted):
        _join(search.copies, one, other)
    copies = _roots(search.copies)
    kept, similarities = _choose(copies, search.cache, accepted, sketches.lengths, ranks)
    if all_stay and ranks.any():
        _look_below(copies, search.cache, accepted, sketches, ranks, kept, similarities)
    return Near(_roots(search.related), kept, similarities, search.proofs)


class _Search:
    """What is known after each part of the candidates."""

    def __init__(self, sketches: Sketches, can_go: np.ndarray) -> None:
        self.related, self.copies = np.arange(len(sketches)), np.arange(len(sketches))
        self.neighbours = np.zeros(len(sketches), np.uint32)  # others that are somewhat alike, copies left out
        self.doubtful: list[np.ndarray] = []  # (n, 2) pairs that are copies where there is no crowd
        self.cache, self.proofs = Cache(sketches), 0
        self._sketches, self._can_go = sketches, can_go
        self._failures = np.zeros((len(_LIMITS), len(sketches)), np.uint32)  # of proofs, by kind of pair
        self._failed = np.zeros(1, np.uint64)  # keys of those pairs; a record is no pair with itself

    def look(self, first: np.ndarray, second: np.ndarray, *, words: bool = False) -> None:
        """Prove those of some pairs that can still join something; ``words``: pairs that share a band of words."""
        roots = _roots(self.copies)
        kind = _WORDS if words else _LIKELY
        chosen = (roots[first] != roots[second]) & (self._least_failures(kind, first, second) < _LIMITS[kind])
        first, second = first[chosen], second[chosen]
        estimate = estimates(self._sketches, first, second, words=words)
        chosen = estimate >= (WORDS_ESTIMATE if words else LOOSE_ESTIMATE)
        first, second, estimate = first[chosen], second[chosen], estimate[chosen]
        kinds = np.full(len(first), _WORDS)
        if not words:
            for place in np.flatnonzero(estimate >= RELATED_ESTIMATE).tolist():
                _join(self.related, int(first[place]), int(second[place]))
            kinds = np.where(estimate >= LEAST_ESTIMATE, _LIKELY, _UNLIKELY)
        roots = _roots(self.related)
        keys = (first.astype(np.uint64) << np.uint64(32)) | second.astype(np.uint64)
        alone = np.maximum(self.neighbours[first], self.neighbours[second]) <= CROWD
        kind = _WORDS if words else _UNLIKELY
        hopeful = alone | (
            (roots[first] != roots[second]) & (self._least_failures(kind, first, second) < _LIMITS[kind])
        )
        places = np.minimum(np.searchsorted(self._failed, keys), len(self._failed) - 1)
        worth = np.flatnonzero((self._failed[places] != keys) & (hopeful | (kinds == _LIKELY)))
        # Likely copies first, so that they are no neighbours; then pairs of one record together, for the cache.
        worth = worth[np.lexsort((keys[worth], kinds[worth]))]
        missed, doubtful = [], []
        for place in worth.tolist():
            pair = int(first[place]), int(second[place])
            if self._skips(*pair, int(kinds[place])) or self._joins(*pair):
                continue
            compared = self.cache[pair[0]], self.cache[pair[1]]
            missed.append(keys[place])
            for one in pair:
                self._failures[kinds[place], one] += 1
            found = likeness(*compared)
            if found >= SIMILAR_WORDS and is_related(*compared):
                _join(self.related, *pair)
                if self._can_go[list(pair)].all() and is_loose_copy(*compared):
                    doubtful.append(pair)
            if found >= NEIGHBOUR and not words:  # the crowd is what runs of characters find
                for one in pair:
                    self.neighbours[one] += 1
        self._failed = np.sort(np.concatenate([self._failed, np.array(missed, np.uint64)]))
        if doubtful:
            self.doubtful.append(np.array(doubtful))

    def _least_failures(self, kind: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        failures = self._failures[kind]
        return np.asarray(np.minimum(failures[first], failures[second]))

    def _skips(self, one: int, other: int, kind: int) -> bool:
        """Whether a proof has become needless since the pairs were chosen."""
        if _root(self.copies, one) == _root(self.copies, other):
            return True
        tried = bool(min(self._failures[kind, one], self._failures[kind, other]) >= _LIMITS[kind])
        if kind == _LIKELY:
            return tried
        if max(self.neighbours[one], self.neighbours[other]) <= CROWD:
            return False
        return tried or _root(self.related, one) == _root(self.related, other)

    def _joins(self, one: int, other: int) -> bool:
        """Whether two records are copies by the strict measure, which joins them."""
        self.proofs += 1
        if not (self._can_go[one] and self._can_go[other] and is_copy(self.cache[one], self.cache[other])):
            return False
        _join(self.copies, one, other)
        _join(self.related, one, other)
        return True


# ------------------------------------------------------------------------------------------------- pairs in a crowd


def _accepted(search: _Search, sketches: Sketches, members: np.ndarray) -> set[tuple[int, int]]:
    """The doubtful pairs that are copies."""
    pairs = np.concatenate([np.empty((0, 2), np.int64), *search.doubtful])
    crowd = search.neighbours[pairs].max(axis=1).astype(np.int64) - 1  # the other one of the pair left out
    found = {(one, other) for one, other in pairs[crowd <= 0].tolist()}
    pairs, crowd = pairs[crowd > 0], crowd[crowd > 0]
    for start in range(0, len(pairs), _DOUBTS):
        part, others = pairs[start : start + _DOUBTS].tolist(), crowd[start : start + _DOUBTS].tolist()
        for (one, other), bits, count in zip(
            part, _evidence(part, search.cache, sketches, members), others, strict=True
        ):
            if bits >= DOUBLING * math.log2(1 + count):
                found.add((one, other))
    return found


def _evidence(pairs: list[list[int]], cache: Cache, sketches: Sketches, members: np.ndarray) -> list[float]:
    """Of each pair (see :func:`~ownchat.clean.evidence.accidents`), by what an even sample of the records says."""
    step = max(1, math.ceil(int(sketches.lengths[members].sum()) / _EVIDENCE_CHARS))
    spoken = (split_words(" ".join(sketches.texts(index))) for index in members[::step].tolist())
    return accidents(
        [(cache[one].own_to(cache[other]), cache[other].own_to(cache[one])) for one, other in pairs], spoken
    )


# --------------------------------------------------------------------------------------------------- who is kept


def _choose(
    copies: np.ndarray, cache: Cache, accepted: set[tuple[int, int]], lengths: np.ndarray, ranks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Who stands for whom: in each group the longest of the lowest rank, then those too unlike it in the same way."""
    kept, similarities = np.arange(len(copies)), np.ones(len(copies), np.float32)
    grouped = np.flatnonzero(np.bincount(copies, minlength=len(copies))[copies] > 1)
    grouped = grouped[np.lexsort((grouped, -lengths[grouped], ranks[grouped], copies[grouped]))]
    borders = np.flatnonzero(np.diff(copies[grouped], prepend=-1, append=-1)) if len(grouped) else np.empty(0, np.int64)
    for start, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        left = grouped[start:end].tolist()
        while left:
            best, *others = left
            left = []
            for one in others:
                pair = cache[best], cache[one]
                least = SIMILAR if min(pair[0].count, pair[1].count) < SHORT_WORDS else CHAIN
                alike = similarity(*pair) >= least and _alike_on_both_sides(*pair)
                if alike or (min(best, one), max(best, one)) in accepted:
                    kept[one], similarities[one] = best, likeness(*pair)
                else:
                    left.append(one)
    return kept, similarities


def _look_below(
    copies: np.ndarray, cache: Cache, accepted: set[tuple[int, int]], sketches: Sketches, ranks: np.ndarray,
    kept: np.ndarray, similarities: np.ndarray,
) -> None:  # fmt: skip
    """Let records of a lower rank that stay stand for their copies, where none does yet."""
    grouped = np.flatnonzero(np.bincount(copies, minlength=len(copies))[copies] > 1)
    grouped = grouped[np.lexsort((grouped, ranks[grouped], copies[grouped]))]
    for group in np.split(grouped, np.flatnonzero(np.diff(copies[grouped])) + 1):
        for one in group[ranks[group] > 0].tolist():
            if ranks[kept[one]] < ranks[one]:
                continue
            below = group[(ranks[group] < ranks[one]) & (ranks[kept[group]] == ranks[group])]
            likely = estimates(sketches, np.full(len(below), one), below) >= LOOSE_ESTIMATE
            for other, worth in zip(below.tolist(), likely.tolist(), strict=True):
                pair = cache[one], cache[other]
                if (min(one, other), max(one, other)) in accepted or (worth and is_copy(*pair)):
                    kept[one], similarities[one] = other, likeness(*pair)
                    break


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
