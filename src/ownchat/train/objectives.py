"""What is minimised. One loop serves every objective:

    loss = sum over terms of coefficient * sum over the global batch / global count

The counts are known before the first backward pass, from the data alone, so the result does not depend on how the
batch is cut into blocks or shared among processes. Preferences: :mod:`ownchat.train.preferences`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from ownchat.model.block import Block, Document
from ownchat.model.loss import negative_log_likelihood
from ownchat.tokenizer.store import Item

Terms = dict[str, Tensor]


class Objective(Protocol):
    """Terms of a loss, each a sum over trained positions of a block."""

    @property
    def coefficients(self) -> dict[str, float]:
        """By term: its weight in the loss. A term without one is a figure that is only looked at."""
        ...

    def counts(self, batch: Sequence[Item]) -> dict[str, int]:
        """By term: over how many units of the global batch its sum runs."""
        ...

    def prepare(self, model: Any, batch: Sequence[Item]) -> Any:
        """What the terms need of the whole batch and without gradient; None for most."""
        ...

    def terms(self, model: Any, block: Block, items: Sequence[Item], context: Any) -> Terms:
        """By term: its sum over this block of items, with gradient. ``context``: of :meth:`prepare`."""
        ...

    def documents(self, valid: Sequence[Item]) -> list[Document]:
        """What a validation over these items scores."""
        ...

    def validation(
        self, valid: Sequence[Item], scores: Sequence[np.ndarray], likeliest: Sequence[np.ndarray] = ()
    ) -> dict[str, float]:
        """The figures of a validation; "loss" is the one that is to fall.

        ``scores``: log-probabilities of the trained tokens of each of :meth:`documents`, in nats; ``likeliest``: bools,
        was each of them the likeliest token? Empty where nobody looked.
        """
        ...


class Likelihood:
    """Pre-training and supervised fine-tuning: mean negative log-likelihood of the trained tokens.

    ``num_bytes``: of the text that a validation scores; then it also tells bits per byte, which compares models of
    other tokenizers, too.
    """

    coefficients: ClassVar[dict[str, float]] = {"nll": 1.0}

    def __init__(self, num_bytes: int = 0) -> None:
        self._num_bytes = num_bytes

    def counts(self, batch: Sequence[Item]) -> dict[str, int]:
        return {"nll": sum(int(np.count_nonzero(weights[1:])) for _, weights in documents_of(batch))}

    def prepare(self, model: Any, batch: Sequence[Item]) -> None:
        return None

    def terms(self, model: Any, block: Block, items: Sequence[Item], context: Any) -> Terms:
        return {"nll": negative_log_likelihood(model, block)}

    def documents(self, valid: Sequence[Item]) -> list[Document]:
        return documents_of(valid)

    def validation(
        self, valid: Sequence[Item], scores: Sequence[np.ndarray], likeliest: Sequence[np.ndarray] = ()
    ) -> dict[str, float]:
        values = np.concatenate(scores)
        bits = {"bits_per_byte": -float(values.sum()) / math.log(2) / self._num_bytes} if self._num_bytes else {}
        return {"loss": -float(values.mean())} | bits | token_accuracy(likeliest)


def documents_of(items: Sequence[Item]) -> list[Document]:
    """The documents of items, one item after the other."""
    return [document for item in items for document in item.documents]


def token_accuracy(likeliest: Sequence[np.ndarray]) -> dict[str, float]:
    """The share of tokens that the model held for the likeliest, as a figure of a validation; none of no documents.

    >>> token_accuracy([np.array([True, False]), np.array([True, True])])
    {'token_accuracy': 0.75}
    """
    return {"token_accuracy": float(np.concatenate(likeliest).mean())} if len(likeliest) else {}
