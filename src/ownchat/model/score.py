"""Log-probabilities of documents under a model, for validation and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ownchat.model.block import Document, make_block
from ownchat.model.load import can_pack
from ownchat.model.loss import log_probabilities


def score_documents(
    model: Any,
    documents: Sequence[tuple[Any, Any]],
    *,
    block_tokens: int = 2048,
    progress: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """For every document (ids, weights): the log-probabilities of its trained tokens, float64 [trained], in nats.

    Documents are sorted by length and share forward passes; the result stands in the order given.
    ``progress`` is called with the number of documents done.
    """
    arrays: list[Document] = [(np.asarray(ids, np.int64), np.asarray(weights, np.uint8)) for ids, weights in documents]
    packed, device = can_pack(model), model.device
    scores: list[np.ndarray] = [np.zeros(0)] * len(arrays)
    training = model.training
    model.eval()
    with torch.no_grad():
        for numbers in _blocks([len(ids) for ids, _ in arrays], block_tokens):
            block = make_block([arrays[number] for number in numbers], packed=packed, device=device)
            values = log_probabilities(model, block).double().cpu().numpy()
            for number, part in zip(numbers, np.split(values, np.cumsum(block.trained)[:-1]), strict=True):
                scores[number] = part
            if progress is not None:
                progress(len(numbers))
    model.train(training)
    return scores


def _blocks(lengths: list[int], block_tokens: int) -> list[list[int]]:
    blocks: list[list[int]] = []
    held = 0
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not blocks or held + lengths[number] > block_tokens:
            blocks.append([])
            held = 0
        blocks[-1].append(number)
        held += lengths[number]
    return blocks
