"""What the backward pass needs of the forward pass, by layer: kept, made again, or held in the host's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ownchat.errors import ConfigError

Activations = Literal["keep", "recompute", "offload"]


def use_activations(model: torch.nn.Module, how: Activations) -> None:
    """From now on a training step keeps every layer's activations, or only its input and makes the rest again in the
    backward pass (Chen et al. 2016, arXiv:1604.06174), with ``offload`` that input in the host's pinned memory.

    The same numbers in every case, dropout included. Raises :class:`~ownchat.errors.ConfigError` when the model's
    layers cannot do it, or the model is not on a GPU and there is nothing to offload from.
    """
    if how not in possible(model):
        check_device(how, next(model.parameters()).device.type)
        raise ConfigError(
            f"the layers of this architecture ({type(model).__name__}) cannot make their activations again",
            where=f"train.activations = {how}",
            fix="use train.activations=keep, with shorter pieces (tokenizer.max_tokens) or a smaller base",
        )
    layer: Any
    for layer in filter(_can_recompute, model.modules()):
        layer.gradient_checkpointing = how != "keep"
        layer._gradient_checkpointing_func = _HOW.get(how)


def possible(model: torch.nn.Module) -> tuple[Activations, ...]:
    """What a model can do on its device, from the most memory to the least."""
    if not any(map(_can_recompute, model.modules())):
        return ("keep",)
    return ("keep", "recompute", "offload") if next(model.parameters()).is_cuda else ("keep", "recompute")


def check_device(how: str, device: str) -> None:
    """Raise :class:`~ownchat.errors.ConfigError` where offloading has no sense."""
    if how == "offload" and device != "cuda":
        raise ConfigError(
            "activations are on the CPU already: there is nothing to offload them from",
            where="train.activations = offload",
            fix="use train.activations=recompute, which saves memory everywhere",
        )


def _can_recompute(module: torch.nn.Module) -> bool:
    return isinstance(module, GradientCheckpointingLayer)


def _recompute(function: Callable[..., Any], *inputs: Any) -> Any:
    return checkpoint(function, *inputs, use_reentrant=False)


def _offload(function: Callable[..., Any], *inputs: Any) -> Any:
    with save_on_cpu(pin_memory=True):  # around the checkpoint: it is the layer's input that goes, not its weights
        return checkpoint(function, *inputs, use_reentrant=False)


_HOW: dict[str, Callable[..., Any]] = {"recompute": _recompute, "offload": _offload}
