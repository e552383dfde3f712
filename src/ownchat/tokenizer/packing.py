"""Which documents form which step, and which of them share a forward pass: a pure function of (seed, epoch).

So a resume needs the step number and nothing else, and the order does not depend on the number of processes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Block = np.ndarray  # int64 [documents]: numbers of the documents that share one forward pass
Step = list[Block]  # one global batch

# A block is laid out as a grid for attention, documents by the longest of them. Very unlike lengths waste it.
MAX_CELLS_PER_TOKEN = 4
USUAL_SHARE = 0.8  # of all tokens are in blocks of one size


@dataclass(frozen=True)
class Mix:
    """How often the documents of each part are in one epoch.

    ``part``: int64 [documents], the part that each belongs to. ``passes``: of each part, 1 for once. Of a part of n
    documents with 2.3 passes each is there twice and round(0.3 n) of them once more: in every epoch the next ones of
    one random order, so that all have their turn.

    >>> mix = Mix(np.array([0, 0, 0, 1]), (1.5, 0.0))
    >>> mix.num_documents, [sorted(mix.documents(seed=0, epoch=epoch).tolist()) for epoch in (0, 1)]
    (5, [[0, 0, 1, 1, 2], [0, 0, 1, 2, 2]])
    """

    part: np.ndarray
    passes: tuple[float, ...]

    def documents(self, seed: int, epoch: int) -> np.ndarray:
        """int64 [num_documents]: the documents of an epoch, by part."""
        chosen = []
        for number, (whole, more) in enumerate(self._counts()):
            mine = np.flatnonzero(self.part == number)
            order = np.random.Generator(np.random.PCG64([seed, number, len(mine)])).permutation(mine)
            turns = np.arange(epoch * more, (epoch + 1) * more)
            chosen += [np.repeat(mine, whole), order.take(turns, mode="wrap") if more else mine[:0]]
        return np.concatenate(chosen)

    @property
    def num_documents(self) -> int:
        """In an epoch: the same in each."""
        return sum(whole * size + more for (whole, more), size in zip(self._counts(), self._sizes(), strict=True))

    def described(self) -> str:
        """For people: how much an epoch is, and what is never in it."""
        out = sum(size for (whole, more), size in zip(self._counts(), self._sizes(), strict=True) if not whole + more)
        text = f"an epoch has {self.num_documents:,} pieces, there are {len(self.part):,}"
        return f"{text}; {out:,} are left out" if out else text

    def tokens(self, lengths: np.ndarray) -> float:
        """Tokens of an epoch, on average over many."""
        counts, sizes = self._counts(), self._sizes()
        totals = np.bincount(self.part, lengths, minlength=len(self.passes))
        passes = [whole + more / max(1, size) for (whole, more), size in zip(counts, sizes, strict=True)]
        return float(totals @ np.array(passes))

    def _sizes(self) -> list[int]:
        return np.bincount(self.part, minlength=len(self.passes)).tolist()

    def _counts(self) -> list[tuple[int, int]]:
        """By part: how often all of its documents are there, and how many of them once more."""
        counts = []
        for passes, size in zip(self.passes, self._sizes(), strict=True):
            whole = math.floor(passes)
            counts.append((whole, math.floor((passes - whole) * size + 0.5)))
        return counts


def epoch_tokens(lengths: np.ndarray, mix: Mix | None = None) -> float:
    """Tokens of one epoch."""
    return float(lengths.sum()) if mix is None else mix.tokens(lengths)


def num_steps(lengths: np.ndarray, batch_tokens: int, mix: Mix | None = None) -> int:
    """Optimiser steps in one epoch: the same in every epoch."""
    documents = len(lengths) if mix is None else mix.num_documents
    return min(documents, max(1, math.ceil(epoch_tokens(lengths, mix) / batch_tokens)))


def pack(
    lengths: np.ndarray, *, batch_tokens: int, block_tokens: int, seed: int, epoch: int, mix: Mix | None = None
) -> list[Step]:
    """All documents once, or as ``mix`` says, in a random order, as steps of about ``batch_tokens`` made of blocks.

    ``lengths``: int64 [documents], tokens of each. Steps of an epoch are equally large within one document, the
    last one too: a small last batch would be a noisy step. Inside a step the documents are sorted by length and cut
    into blocks of at most ``block_tokens``; a longer document is a block of its own.

    >>> steps = pack(np.array([3, 5, 2, 6]), batch_tokens=8, block_tokens=8, seed=0, epoch=0)
    >>> len(steps), sorted(int(i) for step in steps for block in step for i in block)
    (2, [0, 1, 2, 3])
    """
    documents = np.arange(len(lengths)) if mix is None else mix.documents(seed, epoch)
    order = documents[np.random.Generator(np.random.PCG64([seed, epoch])).permutation(len(documents))]
    count = num_steps(lengths, batch_tokens, mix)
    # The step of a document is where its middle falls, when all documents stand in a row cut into equal parts.
    middles = np.cumsum(lengths[order]) - lengths[order] / 2
    step_of = np.minimum((middles * count / lengths[order].sum()).astype(np.int64), count - 1)
    steps = np.split(order, np.searchsorted(step_of, np.arange(1, count)))
    if any(len(members) == 0 for members in steps):  # a document larger than a batch: share out by number instead
        steps = np.array_split(order, count)
    return [cut(members, lengths, block_tokens) for members in steps]


def usual_block(lengths: np.ndarray, steps: Sequence[Step]) -> tuple[int, int] | None:
    """(documents, tokens of each) of the blocks that hold most of these steps' tokens; none if no one size holds 80 %.

    >>> usual_block(np.array([4, 4, 4, 4, 3]), [[np.array([0, 1])], [np.array([2, 3])], [np.array([4])]])
    (2, 4)
    """
    tokens: Counter[tuple[int, int]] = Counter()
    total = 0
    for sizes in (lengths[block] for step in steps for block in step):
        total += int(sizes.sum())
        if sizes.min() == sizes.max():
            tokens[len(sizes), int(sizes[0])] += int(sizes.sum())
    shape, most = tokens.most_common(1)[0] if tokens else ((0, 0), 0)
    return shape if most >= USUAL_SHARE * total > 0 else None


def cut(members: np.ndarray, lengths: np.ndarray, block_tokens: int) -> Step:
    """As few blocks as the limit allows, equally full: a small last one would cost nearly as much as a large one."""
    by_length = members[np.argsort(lengths[members], kind="stable")]
    count = math.ceil(int(lengths[by_length].sum()) / block_tokens)
    fill = min(block_tokens, math.ceil(int(lengths[by_length].sum()) / count) + int(lengths[by_length[-1]]) - 1)
    blocks: Step = []
    start, tokens = 0, 0
    for end, number in enumerate(by_length):
        length = int(lengths[number])
        cells = (end - start + 1) * length
        full = tokens + length > fill or cells > MAX_CELLS_PER_TOKEN * (tokens + length)
        if end > start and full:
            blocks.append(by_length[start:end])
            start, tokens = end, 0
        tokens += length
    blocks.append(by_length[start:])
    return blocks
