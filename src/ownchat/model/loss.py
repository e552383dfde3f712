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


class _HeadLoss(torch.autograd.Function):
    """hidden [K, d], weight [V, d], targets [K] -> log-probability of each target [K], float32.

    Gradients of a sum of log-probabilities are made in the forward pass: d log p / d logits = onehot - softmax.
    The caller's gradient has to be one number for all positions, which :func:`negative_log_likelihood` sees to.
    """

    @staticmethod
    def forward(context: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        log_probabilities = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        wants_hidden, wants_weight = context.needs_input_grad[:2]
        of_hidden = torch.empty_like(hidden) if wants_hidden else None
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            logits = (hidden[part] @ weight.T).float()
            chosen = targets[part, None]
            log_probabilities[part] = logits.log_softmax(-1).gather(1, chosen)[:, 0]
            if wants_hidden or wants_weight:
                # softmax's own kernel and not exp_(): that goes through MKL, 20 times slower on AMD processors
                gradient = logits.softmax(-1).neg_()
                gradient.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=gradient.dtype))
                small = gradient.to(hidden.dtype)
                if of_hidden is not None:
                    torch.mm(small, weight, out=of_hidden[part])
                if of_weight is not None:
                    of_weight += small.T @ hidden[part]
        context.save_for_backward(of_hidden, of_weight)
        context.dtype = weight.dtype
        return log_probabilities

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        of_hidden, of_weight = context.saved_tensors
        factor = gradients[0][0]
        if factor.device.type == "cpu":  # a GPU would be waited for
            assert torch.equal(gradients[0], factor.expand_as(gradients[0])), "one factor for all positions"
        return (
            None if of_hidden is None else of_hidden * factor.to(of_hidden.dtype),
            None if of_weight is None else (of_weight * factor).to(context.dtype),
            None,
        )


def log_probabilities(model: Any, block: Block) -> Tensor:
    """Log-probability of every target of a block: float32 [K], in the order of the documents."""
    kwargs = {} if block.layout is None else {"layout": block.layout}
    inputs = {"input_ids": block.ids, "attention_mask": block.mask, "use_cache": False}
    if block.layout is not None:  # padded rows are left to the model: some count from 2, and some take no positions
        inputs["position_ids"] = block.positions
    if not _plain_head(model):
        logits = model(**inputs, **kwargs).logits.flatten(0, 1).index_select(0, block.index).float()
        return logits.log_softmax(-1).gather(1, block.targets[:, None])[:, 0]
    hidden = model.get_decoder()(**inputs, **kwargs).last_hidden_state
    chosen = hidden.flatten(0, 1).index_select(0, block.index)
    return _HeadLoss.apply(chosen, model.get_output_embeddings().weight, block.targets)


def negative_log_likelihood(model: Any, block: Block) -> Tensor:
    """Sum over the block's trained tokens, in nats. Divide by the global batch's count, not by the block's."""
    return -log_probabilities(model, block).sum()


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
