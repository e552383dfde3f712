"""Norms and gates with hand-written gradients: fewer passes over memory, and a third less of it held for the backward
pass.

Which modules these formulas may stand for is found out and not assumed: a module of transformers with the right parts
is tried on random numbers, once for each class, and only where the results are equal its forward is replaced. Every
other module, and one that a later version of transformers changes, stays as it is.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

Activation = Literal["silu", "gelu", "gelu_tanh"]
# How the weight of a norm is used: times weight, after the cast to x's type (Llama, Qwen, Mistral, SmolLM) or before it
# (Olmo 2); or times (1 + weight), before the cast (Gemma).
Scaling = Literal["after_cast", "before_cast", "one_plus"]


def rms_norm(x: Tensor, weight: Tensor, eps: float, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """x / sqrt(mean(x^2) + eps) times the weight, over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467).

    x: [..., d], weight: [d]. Returns the result in x's type, and 1 / sqrt(mean(x^2) + eps): float32 [..., 1].
    """
    square_sum = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_()
    scale = square_sum.div_(x.shape[-1]).add_(eps).rsqrt_()
    normed = x * scale  # float32
    if scaling == "after_cast":
        return normed.to(x.dtype).mul_(weight), scale
    return normed.mul_(_factor(weight, scaling)).to(x.dtype), scale


def rms_norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor, scaling: Scaling, *, of_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of x and, if wanted, of the weight. ``scale`` is what :func:`rms_norm` returned."""
    normed = x * scale  # float32
    weight_gradient = (gradient * normed).flatten(0, -2).sum(0).to(weight.dtype) if of_weight else None
    factor = weight if scaling == "after_cast" else _factor(weight, scaling)
    of_normed = (gradient * factor).float()
    along = (of_normed * normed).mean(-1, keepdim=True)
    return of_normed.sub_(normed.mul_(along)).mul_(scale).to(x.dtype), weight_gradient


def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """activation(gate) * up (Shazeer 2020, arXiv:2002.05202), all of one shape."""
    return _activate(gate, activation).mul_(up)


def gated_backward(gradient: Tensor, gate: Tensor, up: Tensor, activation: Activation) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up; the activation is made again, so that nobody holds it."""
    of_activated = gradient * up
    if activation == "silu":
        of_gate = torch.ops.aten.silu_backward(of_activated, gate)
    else:
        of_gate = torch.ops.aten.gelu_backward(of_activated, gate, approximate=_approximate(activation))
    return of_gate, _activate(gate, activation).mul_(gradient)


def can_be_made_again(out: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Note on ``out`` that it is ``function(*inputs)``, and that these are held anyway.

    What computes with ``out`` and needs it in its backward pass then keeps the note and not the tensor.
    """
    out.made_by = (function, tuple(tensor.detach() for tensor in inputs))  # type: ignore[attr-defined]
    return out


def use_ours(model: nn.Module) -> dict[str, int]:
    """Replace the forward of every module that computes exactly this, in place; how many, by kind.

    Kinds: ``rms_norm``, ``gated_mlp``, and ``gelu`` (activations written as a formula in Python; torch's kernel holds
    one tensor for the backward pass where these hold eight).
    """
    replaced: Counter[str] = Counter()
    inside: set[nn.Module] = set()  # activations that nobody calls any more
    known: dict[Hashable, Callable[..., Tensor] | None] = {}
    for module in list(model.modules()):
        if module in inside or not type(module).__module__.startswith("transformers.") or "forward" in vars(module):
            continue
        for kind, fits, find in _KINDS:
            if not fits(module):
                continue
            key = (kind, type(module), type(getattr(module, "act_fn", None)))
            if key not in known:
                known[key] = find(module)
            if (forward := known[key]) is not None:
                module.__dict__["forward"] = MethodType(forward, module)
                inside.update(module.children())
                replaced[kind] += 1
                break
    return dict(replaced)


@dataclass
class Kernels:
    """What computes the formulas: as written above, or compiled (:mod:`ownchat.model.compiled`)."""

    rms_norm: Callable[..., tuple[Tensor, Tensor]] = rms_norm
    rms_norm_backward: Callable[..., tuple[Tensor, Tensor | None]] = rms_norm_backward
    gated: Callable[..., Tensor] = gated
    gated_backward: Callable[..., tuple[Tensor, Tensor]] = gated_backward


kernels = Kernels()


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, eps: float, scaling: Scaling) -> Tensor:
        out, scale = kernels.rms_norm(x, weight, eps, scaling)
        context.save_for_backward(x, weight, scale)
        context.scaling = scaling
        return out

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, weight, scale = context.saved_tensors
        wanted = context.needs_input_grad[1]
        found = kernels.rms_norm_backward(gradients[0], x, weight, scale, context.scaling, of_weight=wanted)
        return *found, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        context.save_for_backward(gate, up)
        context.activation = activation
        return kernels.gated(gate, up, activation)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = context.saved_tensors
        return *kernels.gated_backward(gradients[0], gate, up, context.activation), None


def _factor(weight: Tensor, scaling: Scaling) -> Tensor:
    return weight.float() + 1.0 if scaling == "one_plus" else weight.float()


def _approximate(activation: Activation) -> str:
    return "tanh" if activation == "gelu_tanh" else "none"


def _activate(x: Tensor, activation: Activation) -> Tensor:
    return silu(x) if activation == "silu" else gelu(x, approximate=_approximate(activation))


# The forwards that modules get.


def _norm_forward(scaling: Scaling) -> Callable[..., Tensor]:
    def norm(module: Any, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # of a whole layer, whose compiler fuses what is written in torch
            out: Tensor = type(module).forward(module, x)
            return out
        weight, eps = module.weight, _eps(module)
        out = _RmsNorm.apply(x, weight, eps, scaling)
        return can_be_made_again(out, lambda x, weight: kernels.rms_norm(x, weight, eps, scaling)[0], x, weight)

    return norm


def _mlp_forward(activation: Activation) -> Callable[..., Tensor]:
    def mlp(module: Any, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            down: Tensor = type(module).forward(module, x)
            return down
        gate, up = module.gate_proj(x), module.up_proj(x)
        out = _Gated.apply(gate, up, activation)
        return module.down_proj(can_be_made_again(out, lambda gate, up: kernels.gated(gate, up, activation), gate, up))

    return mlp


def _gelu_forward(module: Any, x: Tensor) -> Tensor:
    return gelu(x, approximate="tanh")


# Which modules may have them: first by their parts, then by what they compute.


def _is_norm(module: Any) -> bool:
    names = [name for name, _ in module.named_parameters()]
    return (
        type(module).__name__.endswith("RMSNorm")
        and _parts(module) == (["weight"], [])
        and names == ["weight"]
        and module.weight.ndim == 1
        and isinstance(_eps(module), float)
    )


def _is_gated_mlp(module: Any) -> bool:
    children = {"gate_proj", "up_proj", "down_proj"}
    return (
        type(module).__name__.endswith("MLP")
        and _parts(module) == ([], sorted({*children, "act_fn"}))
        and all(isinstance(getattr(module, name), nn.Linear) for name in children)
    )


def _is_formula(module: Any) -> bool:
    return "GELU" in type(module).__name__ and _parts(module) == ([], []) and "act" not in vars(module)


def _parts(module: nn.Module) -> tuple[list[str], list[str]]:
    """Names of a module's own tensors and of its children; forward has to take one tensor, else nothing fits."""
    takes_one = len(inspect.signature(type(module).forward).parameters) == 2  # self and x
    tensors = [*module._parameters, *module._buffers]
    return sorted(tensors) if takes_one else ["?"], sorted(name for name, _ in module.named_children())


def _eps(module: Any) -> Any:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


def _find_norm(module: Any) -> Callable[..., Tensor] | None:
    """float32 tells whether the formula is right, bfloat16 where the result is rounded."""
    width = len(module.weight)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(max(16, 8192 // width), width, generator=generator)
    x[::3] *= 1e-3  # mean(x^2) is then as small as eps
    x[1::3] *= 30
    weight = torch.rand(width, generator=generator) + 0.5
    exact, rounded = (copy.deepcopy(module).to("cpu", dtype).train() for dtype in (torch.float32, torch.bfloat16))
    for scaling in ("after_cast", "before_cast", "one_plus"):
        if _same_norm(exact, x, weight, scaling, 1e-5) and _same_norm(rounded, x, weight, scaling, 0.0):
            return _norm_forward(scaling)
    return None


@torch.no_grad()
def _same_norm(trial: Any, x: Tensor, weight: Tensor, scaling: Scaling, tolerance: float) -> bool:
    trial.weight.copy_(weight)
    x = x.to(trial.weight.dtype)
    ours, theirs = rms_norm(x, trial.weight, _eps(trial), scaling)[0], trial(x)
    if theirs.shape != x.shape or theirs.dtype != x.dtype:
        return False
    unlike = (ours.float() - theirs.float()).abs() > tolerance * theirs.float().abs()
    return bool(unlike.float().mean() < 0.02)  # a number at the border of two is now and then rounded to the other


def _find_mlp(module: Any) -> Callable[..., Tensor] | None:
    activation = _find_activation(module.act_fn)
    if activation is None:
        return None
    weight = module.gate_proj.weight
    dtype = weight.dtype if weight.is_floating_point() else torch.float32  # held in four bits: as in bfloat16 below
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, module.gate_proj.in_features, generator=generator).to(weight.device, dtype)
    forward, training = _mlp_forward(activation), module.training
    module.train()  # so that a dropout would show
    with torch.no_grad():
        ours, theirs = forward(module, x).float(), module(x).float()
    module.train(training)
    off = (ours - theirs).norm() / theirs.norm().clamp(min=1e-12)
    return forward if bool(off < (1e-5 if weight.dtype == torch.float32 else 0.02)) else None


@torch.no_grad()
def _find_activation(function: nn.Module) -> Activation | None:
    x = torch.linspace(-12, 12, 2001)
    theirs = function(x)
    for activation in ("silu", "gelu", "gelu_tanh"):
        if torch.allclose(_activate(x, activation), theirs, rtol=1e-5, atol=1e-6):
            return activation
    return None


def _find_formula(module: Any) -> Callable[..., Tensor] | None:
    return _gelu_forward if _find_activation(module) == "gelu_tanh" else None


_KINDS: tuple[tuple[str, Callable[[Any], bool], Callable[[Any], Callable[..., Tensor] | None]], ...] = (
    ("rms_norm", _is_norm, _find_norm),
    ("gated_mlp", _is_gated_mlp, _find_mlp),
    ("gelu", _is_formula, _find_formula),
)
