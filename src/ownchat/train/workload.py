"""What a training will do, counted before it begins: steps, tokens, validations, and the size of its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from ownchat.model import account as accounts
from ownchat.model.account import BlockSize
from ownchat.tokenizer.packing import Mix
from ownchat.tokenizer.store import TokenStore
from ownchat.train.loop import Batches
from ownchat.train.schedule import Plan

SAMPLED_STEPS = 400  # steps whose blocks are laid out to know their size; more are estimated from these


@dataclass(frozen=True)
class Workload:
    """What the loop will do: exact counts, and the size of all blocks together (of a sample, where there are many)."""

    steps: int
    tokens: int
    trained_tokens: int
    validations: int
    work: BlockSize
    num_blocks: int
    validation: BlockSize  # one validation
    validation_tokens: int
    validation_blocks: int
    candidates: tuple[tuple[int, int], ...]  # (step, block) that may take most memory
    largest: tuple[BlockSize, ...]  # their sizes,
    largest_tokens: tuple[int, ...]  # and tokens, a shared prefix counted in each document

    @property
    def checkpoints(self) -> int:
        return self.validations - 1  # the base is not saved


def workload(
    train: TokenStore,
    valid: Sequence[Any],
    plan: Plan,
    *,
    packed: bool = True,
    share_prefix: bool = True,
    mix: Mix | None = None,
) -> Workload:
    """What :func:`~ownchat.train.loop.run_loop` will do by ``plan``, without early stopping and ``train.minutes``.

    ``packed``, ``share_prefix``: how blocks are made, see :func:`~ownchat.model.block.make_block`. ``mix``: how often
    items are in an epoch.
    """

    def size(documents: Sequence[Any]) -> BlockSize:
        return accounts.size_of(documents, packed=packed, share_prefix=share_prefix)

    lengths, batches = train.item_lengths, Batches(train.item_lengths, plan, mix)

    def documents(block: Any) -> list[Any]:
        return [document for number in block for document in train.item(int(number)).documents]

    tokens = num_blocks = 0
    heaviest: dict[tuple[int, int], int] = {}
    sampled = set(np.linspace(0, plan.total_steps - 1, min(plan.total_steps, SAMPLED_STEPS)).astype(int).tolist())
    sizes: list[BlockSize] = []
    longest = (-1, (0, 0))
    trained = 0
    for step in range(plan.total_steps):
        blocks = batches.at(step, plan.block_tokens)
        for number, block in enumerate(blocks):
            total = int(lengths[block].sum())
            tokens += total
            heaviest[step, number] = total
            longest = max(longest, (int(lengths[block].max()), (step, number)))
        num_blocks += len(blocks)
        if len(heaviest) > 1000:
            heaviest = dict(_top(heaviest))
        if step in sampled:
            sizes += [size(documents(block)) for block in blocks]
            trained += sum(int(np.count_nonzero(weights)) for block in blocks for _, weights in documents(block))
    candidates = tuple(dict.fromkeys([*(place for place, _ in _top(heaviest)), longest[1]]))
    largest = tuple(size(documents(batches.at(step, plan.block_tokens)[number])) for step, number in candidates)
    grow = plan.total_steps / len(sampled)
    of_valid = [size(block) for block in validation_blocks(valid, plan.block_tokens)]
    return Workload(
        steps=plan.total_steps,
        tokens=tokens,
        trained_tokens=round(trained * grow),
        validations=1 + sum(map(plan.due, range(1, plan.total_steps + 1))),
        work=_scaled(reduce(add, sizes), grow),
        num_blocks=num_blocks,
        validation=reduce(add, of_valid),
        validation_tokens=sum(len(ids) for ids, _ in valid),
        validation_blocks=len(of_valid),
        candidates=candidates,
        largest=largest,
        largest_tokens=tuple(
            int(lengths[batches.at(step, plan.block_tokens)[number]].sum()) for step, number in candidates
        ),
    )


def _top(heaviest: Mapping[tuple[int, int], int]) -> list[tuple[tuple[int, int], int]]:
    return sorted(heaviest.items(), key=lambda item: -item[1])[:4]


def _scaled(size: BlockSize, factor: float) -> BlockSize:
    return BlockSize(*(round(value * factor) for value in asdict(size).values()))


def validation_blocks(documents: Sequence[Any], block_tokens: int) -> Iterator[list[Any]]:
    """Documents as :func:`~ownchat.model.score.score_documents` groups them: by length, as many as fit."""
    held: list[Any] = []
    for document in sorted(documents, key=lambda document: len(document[0])):
        if held and sum(len(ids) for ids, _ in held) + len(document[0]) > block_tokens:
            yield held
            held = []
        held.append(document)
    if held:
        yield held
