"""What is minimised. One loop serves every objective:

    loss = sum over terms of coefficient * sum over the global batch / global count

The counts are known before the first backward pass, from the data alone, so the result does not depend on how the
batch is cut into blocks or shared among processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from ownchat.model.block import Block, Document
from ownchat.model.loss import negative_log_likelihood

Terms = dict[str, Tensor]


class Objective(Protocol):
    """Terms of a loss, each a sum over trained positions of a block."""

    @property
    def coefficients(self) -> dict[str, float]:
        """By term: its weight in the loss."""
        ...

    def counts(self, batch: Sequence[Document]) -> dict[str, int]:
        """By term: over how many units of the global batch its sum runs."""
        ...

    def prepare(self, model: Any, batch: Sequence[Document]) -> Any:
        """What the terms need of the whole batch and without gradient (a reference's scores); None for most."""
        ...

    def terms(self, model: Any, block: Block, context: Any) -> Terms:
        """By term: its sum over this block, with gradient."""
        ...


class Likelihood:
    """Supervised fine-tuning and continued pre-training: mean negative log-likelihood of the trained tokens."""

    coefficients: ClassVar[dict[str, float]] = {"nll": 1.0}

    def counts(self, batch: Sequence[Document]) -> dict[str, int]:
        return {"nll": sum(int(np.count_nonzero(weights[1:])) for _, weights in batch)}

    def prepare(self, model: Any, batch: Sequence[Document]) -> None:
        return None

    def terms(self, model: Any, block: Block, context: Any) -> Terms:
        return {"nll": negative_log_likelihood(model, block)}
