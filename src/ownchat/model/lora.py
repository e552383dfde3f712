"""LoRA (Hu et al. 2021, arXiv:2106.09685): a trained low-rank product beside each frozen matrix.

PEFT holds the adapter, so what is saved is a standard PEFT adapter. Only the product itself is ours: one autograd
node for each projection, in the model's compute type, the adapter's weights and their gradients in float32.
"""

from __future__ import annotations

from pathlib import Path
from types import MethodType
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn


class _LoraProduct(torch.autograd.Function):
    """x W' + bias + scale * (x A') B', for x [..., in], W [out, in] frozen, A [r, in], B [out, r] in float32."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        small_a, small_b = a.to(x.dtype), (b * scale).to(x.dtype)
        hidden = flat @ small_a.T
        out = flat @ weight.T if bias is None else torch.addmm(bias, flat, weight.T)
        out.addmm_(hidden, small_b.T)
        context.save_for_backward(flat, weight, small_a, small_b, hidden)
        context.scale = scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        flat, weight, small_a, small_b, hidden = context.saved_tensors
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        of_hidden = gradient @ small_b
        of_x = None
        if context.needs_input_grad[0]:
            of_x = (gradient @ weight).addmm_(of_hidden, small_a).view(*gradients[0].shape[:-1], -1)
        # x'h and not h'x: the long dimension stays the contiguous one (a third faster in bfloat16 on CPU)
        of_a = (flat.T @ of_hidden).T.float()
        of_b = (hidden.T @ gradient).T.float() * context.scale
        return of_x, None, None, of_a, of_b, None


def add_lora(model: Any, *, rank: int, alpha: int, seed: int) -> PeftModel:
    """Put a LoRA adapter on every linear layer but the head; the rest is frozen.

    Changes ``model`` in place and returns PEFT's wrapper, which saves and loads the adapter. The start is a function
    of ``seed`` alone: A random, B zero, so that the first output is the base model's.
    """
    random_state = torch.get_rng_state()
    torch.manual_seed(seed)
    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = get_peft_model(model, settings, autocast_adapter_dtype=True)
    torch.set_rng_state(random_state)
    _use_our_product(wrapped)
    return wrapped


def load_adapter(model: Any, directory: Path, *, trainable: bool = False) -> PeftModel:
    """A saved adapter on its base model."""
    wrapped = PeftModel.from_pretrained(model, directory, is_trainable=trainable)
    _use_our_product(wrapped)
    return wrapped


def _use_our_product(wrapped: PeftModel) -> None:
    for module in wrapped.modules():
        if isinstance(module, PeftLinear) and type(module.base_layer) is nn.Linear:
            module.__dict__["forward"] = MethodType(_forward, module)


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(names) != 1 or layer.lora_variant or args or kwargs:
        return PeftLinear.forward(layer, x, *args, **kwargs)
    base, name = layer.base_layer, names[0]
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    return _LoraProduct.apply(x, base.weight, base.bias, a, b, layer.scaling[name])
