"""The loss: negative log-likelihood of trained tokens, in nats. Training, validation and scoring all come here.

The head runs on trained positions only, in chunks, and each chunk's gradient is made while its logits are there:
full logits (tokens by vocabulary) are never held.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ownchat.model.block import Block

CHUNK = 128  # trained positions whose logits are held at once: 128 x 49,152 x 4 bytes = 25 MB
# ... and whose gradients at the logits are held, where the head is trained: each product for its gradient writes the
# whole matrix, so they are few.
WEIGHT_CHUNK = 1024


class _HeadLoss(torch.autograd.Function):
    """hidden [K, d], weight [V, d], targets [K] -> log-probability of each target [K], float32.

    Gradients of log-probabilities are made in the forward pass: d log p / d logits = onehot - softmax. That of the
    hidden states is scaled by the caller's gradient at each position later. That of the weight is a sum over positions
    and cannot be: ``uniform`` promises one and the same number for all of them; else it is made in the backward pass,
    from logits that are made again.
    """

    @staticmethod
    def forward(context: Any, hidden: Tensor, weight: Tensor, targets: Tensor, uniform: bool) -> Tensor:
        log_probabilities = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        wants_hidden, wants_weight = context.needs_input_grad[:2]
        of_hidden = torch.empty_like(hidden) if wants_hidden else None
        of_weight = _WeightGradient(weight, len(targets)) if wants_weight and uniform else None
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            logits = (hidden[part] @ weight.T).float()
            log_probabilities[part] = _of_targets(logits, targets[part])
            if of_hidden is not None or of_weight is not None:
                gradient = _at_logits(logits, targets[part]).to(hidden.dtype)
                if of_hidden is not None:
                    torch.mm(gradient, weight, out=of_hidden[part])
                if of_weight is not None:
                    of_weight.add(gradient, hidden[part])
        made = None if of_weight is None else of_weight.total()
        source = (hidden, weight, targets) if wants_weight and not uniform else (None, None, None)
        context.save_for_backward(of_hidden, made, *source)
        context.dtype = weight.dtype
        return log_probabilities

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        of_hidden, of_weight, hidden, weight, targets = context.saved_tensors
        factors = gradients[0]
        if of_weight is not None:
            if factors.device.type == "cpu":  # a GPU would be waited for
                assert torch.equal(factors, factors[0].expand_as(factors)), "one factor for all positions"
            of_weight = (of_weight * factors[0]).to(context.dtype)
        elif weight is not None:
            made = _WeightGradient(weight, len(targets))
            for start in range(0, len(targets), CHUNK):
                part = slice(start, start + CHUNK)
                gradient = _at_logits((hidden[part] @ weight.T).float(), targets[part])
                made.add((gradient * factors[part, None]).to(hidden.dtype), hidden[part])
            of_weight = made.total().to(context.dtype)
        if of_hidden is not None:
            of_hidden = (of_hidden * factors[:, None]).to(of_hidden.dtype)
        return of_hidden, of_weight, None, None


def _of_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target [k] from logits [k, V]."""
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]


def _at_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """onehot - softmax [k, V] of logits [k, V]."""
    # softmax's own kernel and not exp_(): that goes through MKL, 20 times slower on AMD processors
    gradient = logits.softmax(-1).neg_()
    chosen = targets[:, None]
    return gradient.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=gradient.dtype))


class _WeightGradient:
    """The head's gradient [V, d] from gradients at logits [k, V] and hidden states [k, d] that come in chunks."""

    def __init__(self, weight: Tensor, num_targets: int) -> None:
        rows = min(num_targets, WEIGHT_CHUNK)
        self._logits, self._hidden = weight.new_empty(rows, weight.shape[0]), weight.new_empty(rows, weight.shape[1])
        self._held, self._weight = 0, weight
        self._total: Tensor | None = None

    def add(self, gradient: Tensor, hidden: Tensor) -> None:
        if self._held + len(gradient) > len(self._logits):
            self._multiply()
        place = slice(self._held, self._held + len(gradient))
        self._logits[place], self._hidden[place] = gradient, hidden
        self._held = place.stop

    def total(self) -> Tensor:
        """The sum: as it is in one product, float32 where several were added."""
        if self._held:
            self._multiply()
        return torch.zeros_like(self._weight) if self._total is None else self._total

    def _multiply(self) -> None:
        product = self._logits[: self._held].T @ self._hidden[: self._held]
        self._total = product if self._total is None else self._total.float().add_(product)
        self._held = 0


def log_probabilities(model: Any, block: Block, *, uniform: bool = False) -> Tensor:
    """Log-probability of every target of a block: float32 [K], in the order of the documents.

    ``uniform``: promises that the gradient will be the same number for all of them, which spares a trained head one
    product.
    """
    inputs = _inputs(block)
    if not _plain_head(model):
        logits = model(**inputs).logits.flatten(0, 1).index_select(0, block.index).float()
        return _of_targets(logits, block.targets)
    hidden = model.get_decoder()(**inputs).last_hidden_state
    chosen = hidden.flatten(0, 1).index_select(0, block.index)
    return _HeadLoss.apply(chosen, model.get_output_embeddings().weight, block.targets, uniform)


@torch.no_grad()
def log_probabilities_and_hits(model: Any, block: Block) -> tuple[Tensor, Tensor]:
    """:func:`log_probabilities`, and whether each target is the likeliest token of all (of equal ones the first): bool
    [K]. From the same logits, without gradient."""
    if not _plain_head(model):
        logits = next_logits(model, block)
        return _of_targets(logits, block.targets), logits.argmax(-1) == block.targets
    hidden = model.get_decoder()(**_inputs(block)).last_hidden_state.flatten(0, 1).index_select(0, block.index)
    weight, targets = model.get_output_embeddings().weight, block.targets
    values = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    hits = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
    for start in range(0, len(targets), CHUNK):
        part = slice(start, start + CHUNK)
        logits = (hidden[part] @ weight.T).float()
        values[part], hits[part] = _of_targets(logits, targets[part]), logits.argmax(-1) == targets[part]
    return values, hits


def next_logits(model: Any, block: Block) -> Tensor:
    """What would come next in the places of the block's targets: logits [K, vocabulary], float32."""
    inputs = _inputs(block)
    if not _plain_head(model):
        return model(**inputs).logits.flatten(0, 1).index_select(0, block.index).float()
    hidden = model.get_decoder()(**inputs).last_hidden_state.flatten(0, 1).index_select(0, block.index)
    return (hidden @ model.get_output_embeddings().weight.T).float()


def _inputs(block: Block) -> dict[str, Any]:
    inputs: dict[str, Any] = {"input_ids": block.ids, "attention_mask": block.mask, "use_cache": False}
    if block.layout is None:
        return inputs
    # padded rows are left to the model: some count positions from 2, and some take none
    return inputs | {"position_ids": block.positions, "layout": block.layout}


def negative_log_likelihood(model: Any, block: Block) -> Tensor:
    """Sum over the block's trained tokens, in nats. Divide by the global batch's count, not by the block's."""
    return -log_probabilities(model, block, uniform=True).sum()


def _plain_head(model: Any) -> bool:
    """Is the head one matrix and nothing else? Soft caps, scales and biases take the model's own path."""
    if (tried := getattr(model, "plain_head", None)) is not None:  # by load_model, on a tiny model of the architecture
        return bool(tried)
    head = model.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is not None:
        return False
    config = model.config.get_text_config()
    caps = [getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")]
    return all(cap in (None, 1, 1.0) for cap in caps)
