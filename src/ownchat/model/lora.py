"""LoRA (Hu et al. 2021, arXiv:2106.09685): a trained low-rank product beside each frozen matrix.

PEFT holds the adapter, so what is saved is a standard PEFT adapter. Only the product itself is ours: projections that
read the same input (queries, keys and values; gate and up) are one autograd node with one product for their A's, in
the model's compute type, the adapter's weights and their gradients in float32. Variants: rsLoRA (Kalajdzievski 2023,
arXiv:2312.03732) is another scale; DoRA (Liu et al. 2024, arXiv:2402.09353) learns the length of every row of the
matrix apart from its direction, which is the same product with each output scaled afterwards.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from types import MethodType
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

Variant = Literal["lora", "rslora", "dora"]
Frozen = tuple[Tensor, Tensor | None]
MadeBy = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


class _LoraProducts(torch.autograd.Function):
    """x W_i' + bias_i + scale_i * (x A_i') B_i' for projections i that share the input x [..., in].

    ``frozen``: W_i [out_i, in] and bias_i or None of each; ``adapters``: A_1 [r_1, in], B_1 [out_1, r_1], A_2, ... in
    float32. ``made_by``: a function and tensors that make x again in the backward pass
    (:func:`~ownchat.model.elementwise.can_be_made_again`). Returns [..., out_i] for each projection.
    """

    @staticmethod
    def forward(
        context: Any, x: Tensor, made_by: MadeBy, frozen: tuple[Frozen, ...], scales: tuple[float, ...],
        *adapters: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        flat = x.reshape(-1, x.shape[-1])
        a = torch.cat(adapters[0::2]).to(x.dtype)
        b = [(part * scale).to(x.dtype) for part, scale in zip(adapters[1::2], scales, strict=True)]
        hidden = flat @ a.T
        outputs = []
        # One product for all W_i was tried: B_i's are then added to parts of its rows, which copies them (LOG.md).
        for (weight, bias), part, columns in zip(frozen, b, _cuts(b, 1), strict=True):
            out = flat @ weight.T if bias is None else torch.addmm(bias, flat, weight.T)
            outputs.append(out.addmm_(hidden[:, columns], part.T).view(*x.shape[:-1], -1))
        context.make_input, source = made_by
        context.save_for_backward(a, hidden, *b, *(weight for weight, _ in frozen), *source)
        context.scales = scales
        context.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        a, hidden, *others = context.saved_tensors
        count = len(context.scales)
        b, weights, source = others[:count], others[count : 2 * count], others[2 * count :]
        flat = context.make_input(*source).reshape(-1, a.shape[1])
        given = [None if g is None else g.reshape(-1, g.shape[-1]) for g in gradients]  # None: nobody used that output
        shape = next(g.shape[:-1] for g in gradients if g is not None)
        of_hidden = torch.cat(
            [
                hidden.new_zeros(len(hidden), part.shape[1]) if gradient is None else gradient @ part
                for gradient, part in zip(given, b, strict=True)
            ],
            dim=1,
        )
        of_x: Tensor | None = None
        if context.needs_input_grad[0]:
            for gradient, weight in zip(given, weights, strict=True):
                if gradient is not None:
                    of_x = gradient @ weight if of_x is None else of_x.addmm_(gradient, weight)
            assert of_x is not None
            of_x = of_x.addmm_(of_hidden, a).view(*shape, -1)
        # x'h and not h'x: the long dimension stays the contiguous one (a third faster in bfloat16 on CPU)
        of_a = (flat.T @ of_hidden).T.float()
        of_adapters: list[Tensor | None] = []
        for gradient, scale, columns in zip(given, context.scales, _cuts(b, 1), strict=True):
            of_adapters.append(of_a[columns])
            of_adapters.append(None if gradient is None else (hidden[:, columns].T @ gradient).T.float() * scale)
        return of_x, None, None, None, *of_adapters


def _itself(x: Tensor) -> Tensor:
    return x


def _cuts(parts: Sequence[Tensor], dimension: int) -> list[slice]:
    """Where each part stands when they stand below (or beside) each other."""
    ends = list(accumulate(part.shape[dimension] for part in parts))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


class _Group:
    """Projections that read the same input. The first that is called computes all; the others take theirs."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = list(layers)
        self._input: Tensor | None = None
        self._outputs: dict[int, Tensor] = {}

    def __call__(self, layer: Any, x: Tensor) -> Tensor:
        if self._input is not x or id(layer) not in self._outputs:
            names = [_adapter(one) for one in self.layers]
            adapters = [
                matrix.weight
                for one, name in zip(self.layers, names, strict=True)
                for matrix in (one.lora_A[name], one.lora_B[name])
            ]
            scales = tuple(one.scaling[name] for one, name in zip(self.layers, names, strict=True))
            made_by = getattr(x, "made_by", (_itself, (x.detach(),)))
            frozen = tuple(_frozen(one) for one in self.layers)
            frozen = tuple(  # DoRA scales the product, and adds the bias to that
                (weight, None if name in one.lora_variant else bias)
                for (weight, bias), one, name in zip(frozen, self.layers, names, strict=True)
            )
            outputs = _LoraProducts.apply(x, made_by, frozen, scales, *adapters)
            self._input, self._outputs = x, {id(one): out for one, out in zip(self.layers, outputs, strict=True)}
        found = self._outputs.pop(id(layer))
        if not self._outputs:
            self._input = None
        return found

    def forget(self) -> None:
        self._input, self._outputs = None, {}


def forget_outputs(model: nn.Module) -> None:
    """After an error in the middle of a forward pass: let go of outputs that nobody took, and the graph behind them."""
    for module in model.modules():
        group = module.__dict__.get("_ownchat_group")
        if group is not None:
            group.forget()


def add_lora(
    model: Any, *, rank: int, alpha: int, seed: int, variant: Variant = "lora", ours: bool = True
) -> PeftModel:
    """Put a LoRA adapter on every linear layer but the head; the rest is frozen. ``ours``: with our products.

    Changes ``model`` in place and returns PEFT's wrapper, which saves and loads the adapter. The product is scaled by
    alpha / rank, with ``rslora`` by alpha / sqrt(rank). The start is a function of ``seed`` alone: A random, B zero,
    DoRA's lengths those of the base's rows, so that the first output is the base model's.
    """
    random_state = torch.get_rng_state()
    torch.manual_seed(seed)
    settings = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM", use_rslora=variant == "rslora",
        use_dora=variant == "dora",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # PEFT says that it sets it by itself (GPT-2)
        wrapped = get_peft_model(model, settings, autocast_adapter_dtype=True)
    torch.set_rng_state(random_state)
    if ours:
        _measure_rows(wrapped)
        use_our_products(wrapped)
    return wrapped


def load_adapter(model: Any, directory: Path, *, trainable: bool = False) -> PeftModel:
    """A saved adapter on its base model."""
    wrapped = PeftModel.from_pretrained(model, directory, is_trainable=trainable)
    use_our_products(wrapped)
    return wrapped


def use_our_products(wrapped: PeftModel) -> list[int]:
    """Replace the forward of PEFT's linear layers, in place; returns how many projections each node computes."""
    layers = [module for module in wrapped.modules() if isinstance(module, PeftLinear) and _plain(module)]
    if not layers or layers[0].base_layer.weight.device.type == "meta":
        return []
    groups = _sharing_an_input(wrapped, layers)
    for members in groups:
        group = _Group(members)
        for layer in members:
            layer.__dict__["forward"] = MethodType(_forward, layer)
            layer.__dict__["_ownchat_group"] = group
    return [len(members) for members in groups]


def _plain(layer: Any) -> bool:
    base = layer.base_layer
    return type(base) in (nn.Linear, Conv1D) and base.weight.is_floating_point() and not base.weight.requires_grad


def _sharing_an_input(wrapped: PeftModel, layers: list[Any]) -> list[list[Any]]:
    """Which layers read the same tensor is seen, not assumed: a few tokens go through the model."""
    inputs: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda module, args: inputs.setdefault(id(module), args[0])) for layer in layers
    ]
    training = wrapped.training
    try:
        wrapped.eval()
        with torch.no_grad():
            ids = torch.arange(4, device=layers[0].base_layer.weight.device)[None]
            wrapped.get_base_model()(input_ids=ids, use_cache=False)
    except Exception:  # a model that wants more than ids: every projection alone is right as well
        inputs.clear()
    finally:
        for hook in hooks:
            hook.remove()
        wrapped.train(training)
    groups: dict[Any, list[Any]] = {}
    for layer in layers:
        shared = inputs.get(id(layer))
        groups.setdefault(id(layer if shared is None else shared), []).append(layer)
    return list(groups.values())


def _frozen(layer: Any) -> Frozen:
    base = layer.base_layer
    weight = base.weight.detach()
    return (weight.T if type(base) is Conv1D else weight), base.bias


def _adapter(layer: Any) -> str | None:
    """The one adapter that a product of ours can compute, if it is so."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(names) != 1:
        return None
    (name,) = names
    plain = isinstance(layer.lora_dropout[name], nn.Identity) and layer.lora_B[name].bias is None
    return name if plain and isinstance(layer.lora_variant.get(name), DoraLinearVariant | None) else None


def _row_lengths(layer: Any, name: str) -> Tensor:
    """Length of every row of W + scale B A, float32 [out]. A constant to the gradient (section 4.3 of the paper)."""
    weight, _ = _frozen(layer)
    a, b = (matrix[name].weight.detach().float() for matrix in (layer.lora_A, layer.lora_B))
    return torch.linalg.vector_norm(torch.addmm(weight.float(), b, a, alpha=layer.scaling[name]), dim=1)


@torch.no_grad()
def _measure_rows(wrapped: PeftModel) -> None:
    """DoRA's lengths at the start in float32; PEFT measures them in the base's type, and bfloat16 is 0.4 % off."""
    layers: list[Any] = [module for module in wrapped.modules() if isinstance(module, PeftLinear) and _plain(module)]
    for layer in layers:
        for name, magnitude in layer.lora_magnitude_vector.items():
            magnitude.weight.copy_(_row_lengths(layer, name))


def _with_lengths(layer: Any, name: str, product: Tensor) -> Tensor:
    """DoRA: every output of (W + scale B A) x times its learned length over the one it has; then the bias."""
    factor = layer.lora_magnitude_vector[name].weight / _row_lengths(layer, name)
    out = (product * factor).to(product.dtype)
    bias = layer.base_layer.bias
    return out if bias is None else out + bias


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    group = layer.__dict__["_ownchat_group"]
    if args or kwargs or any(_adapter(one) is None for one in group.layers):
        return PeftLinear.forward(layer, x, *args, **kwargs)
    product, name = group(layer, x), _adapter(layer)
    assert name is not None
    return _with_lengths(layer, name, product) if name in layer.lora_variant else product
