"""Log-probabilities of documents under a model, for validation and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ownchat.errors import RunError
from ownchat.model.block import Document, blocks_for
from ownchat.model.loss import log_probabilities, log_probabilities_and_hits
from ownchat.model.out_of_memory import Guard, first_line, is_out_of_memory, make_room
from ownchat.monitor.progress import say

BLOCK_TOKENS = 2048


def say_halved(old: int, new: int, why: str) -> None:
    """What a person reads when scoring needed more memory than there was."""
    say(f"out of memory while scoring ({why}): blocks of {new:,} tokens from now on, they were {old:,}; same scores")


def score_documents(
    model: Any,
    documents: Sequence[tuple[Any, Any]],
    *,
    block_tokens: int = BLOCK_TOKENS,
    progress: Callable[[int], None] | None = None,
    guard: Guard | None = None,
    on_halved: Callable[[int, int, str], None] = say_halved,
    likeliest: list[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """For every document (ids, weights): the log-probabilities of its trained tokens, float64 [trained], in nats.

    Documents are sorted by length and share forward passes of at most ``block_tokens``, the longest first; the result
    stands in the order given. ``progress`` is called with the number of documents done. ``likeliest``, a list, is
    filled with a bool array for every document: was its token the likeliest one?

    When memory runs out, what is left to do goes on in blocks of half as many tokens, and
    ``on_halved(old, new, why)`` is told. Raises :class:`~ownchat.errors.RunError` when one document alone is too
    much.
    """
    arrays: list[Document] = [(np.asarray(ids, np.int64), np.asarray(weights, np.uint8)) for ids, weights in documents]
    lengths = [len(ids) for ids, _ in arrays]
    guard = Guard() if guard is None and model.device.type == "cpu" else guard
    scores: list[np.ndarray] = [np.zeros(0)] * len(arrays)
    hits: list[np.ndarray] = [np.zeros(0, bool)] * len(arrays)
    training = model.training
    model.eval()
    waiting = blocks_of(range(len(arrays)), lengths, block_tokens)
    alone = -1  # a document that failed alone, and is tried once more with all room there is
    while waiting:
        numbers = waiting[-1]
        if guard is not None and len(numbers) > 1 and guard.short():
            parts, why = None, "little is left"
        else:
            parts, why = _try(model, [arrays[number] for number in numbers], likeliest is not None)
        if parts is not None:
            waiting.pop()
            for number, (part, right) in zip(numbers, parts, strict=True):
                scores[number], hits[number] = part, right
            if progress is not None:
                progress(len(numbers))
            continue
        make_room()
        if len(numbers) == 1:
            if alone == numbers[0]:
                raise _too_long(lengths[alone], why)
            alone = numbers[0]
            continue
        old, block_tokens = block_tokens, halved(block_tokens, [[lengths[n] for n in block] for block in waiting])
        waiting = blocks_of([number for block in waiting for number in block], lengths, block_tokens)
        on_halved(old, block_tokens, why)
    model.train(training)
    if likeliest is not None:
        likeliest[:] = hits
    return scores


def halved(block_tokens: int, blocks: Sequence[Sequence[int]]) -> int:
    """The limit under which the largest block that can be cut is cut in two; ``blocks``: lengths of documents.

    >>> halved(4096, [[500, 500, 400], [3000]])
    700
    """
    return max(1, min(block_tokens, max(sum(block) for block in blocks if len(block) > 1)) // 2)


def _try(
    model: Any, documents: list[Document], likeliest: bool
) -> tuple[list[tuple[np.ndarray, np.ndarray]] | None, str]:
    """Scores of one block and which tokens were the likeliest (empty unless asked for), or (None, what the allocator
    said). Its tensors are gone when this returns."""
    try:
        with torch.no_grad():
            block = next(blocks_for(model, [documents]))
            if likeliest:
                values, right = log_probabilities_and_hits(model, block)
            else:
                values = log_probabilities(model, block)
                right = torch.zeros_like(values, dtype=torch.bool)
            found = [tensor.cpu().numpy() for tensor in (values.double(), right)]
        ends = np.cumsum(block.trained)[:-1]
        return list(zip(*(np.split(array, ends) for array in found), strict=True)), ""
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None, first_line(error)


def blocks_of(numbers: Sequence[int], lengths: list[int], block_tokens: int) -> list[list[int]]:
    blocks: list[list[int]] = []
    held = 0
    for number in sorted(numbers, key=lengths.__getitem__):
        if not blocks or held + lengths[number] > block_tokens:
            blocks.append([])
            held = 0
        blocks[-1].append(number)
        held += lengths[number]
    return blocks


def _too_long(tokens: int, why: str) -> RunError:
    return RunError(
        f"out of memory: a document of {tokens:,} tokens does not fit when it is scored alone ({why})",
        fix="close other programs, cut documents shorter with tokenizer.max_tokens, or take a smaller base",
    )
