"""Which documents form which step, and which of them share a forward pass: a pure function of (seed, epoch).

So a resume needs the step number and nothing else, and the order does not depend on the number of processes.
"""

from __future__ import annotations

import math

import numpy as np

Block = np.ndarray  # int64 [documents]: numbers of the documents that share one forward pass
Step = list[Block]  # one global batch

# A block is laid out as a grid for attention, documents by the longest of them. Very unlike lengths waste it.
MAX_CELLS_PER_TOKEN = 4


def num_steps(lengths: np.ndarray, batch_tokens: int) -> int:
    """Optimiser steps in one epoch: the same in every epoch."""
    return min(len(lengths), max(1, math.ceil(int(lengths.sum()) / batch_tokens)))


def pack(lengths: np.ndarray, *, batch_tokens: int, block_tokens: int, seed: int, epoch: int) -> list[Step]:
    """All documents once, in a random order, as steps of about ``batch_tokens`` made of blocks.

    ``lengths``: int64 [documents], tokens of each. Steps of an epoch are equally large within one document, the
    last one too: a small last batch would be a noisy step. Inside a step the documents are sorted by length and cut
    into blocks of at most ``block_tokens``; a longer document is a block of its own.

    >>> steps = pack(np.array([3, 5, 2, 6]), batch_tokens=8, block_tokens=8, seed=0, epoch=0)
    >>> len(steps), sorted(int(i) for step in steps for block in step for i in block)
    (2, [0, 1, 2, 3])
    """
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(len(lengths))
    count = num_steps(lengths, batch_tokens)
    # The step of a document is where its middle falls, when all documents stand in a row cut into equal parts.
    middles = np.cumsum(lengths[order]) - lengths[order] / 2
    step_of = np.minimum((middles * count / lengths.sum()).astype(np.int64), count - 1)
    steps = np.split(order, np.searchsorted(step_of, np.arange(1, count)))
    if any(len(members) == 0 for members in steps):  # a document larger than a batch: share out by number instead
        steps = np.array_split(order, count)
    return [cut(members, lengths, block_tokens) for members in steps]


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
