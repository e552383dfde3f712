"""Hand-written gradients equal transformers' own modules, in float32 and near them in bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

from ownchat.model.elementwise import use_ours

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    "initializer_range": 0.2,
}  # fmt: skip
LLAMA_LIKE = {"rms_norm": 5, "gated_mlp": 2}
NO_DROPOUT = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
MODELS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "llama": ({}, LLAMA_LIKE),
    "smollm3": ({}, LLAMA_LIKE),
    "mistral": ({}, LLAMA_LIKE),
    "qwen2": ({}, LLAMA_LIKE),
    "qwen3": ({}, {"rms_norm": 9, "gated_mlp": 2}),
    "granite": ({}, LLAMA_LIKE),
    "olmo2": ({}, {"rms_norm": 9, "gated_mlp": 2}),
    "gemma": ({"hidden_act": "gelu_pytorch_tanh"}, LLAMA_LIKE),
    "gemma2": ({}, {"rms_norm": 9, "gated_mlp": 2}),
    "gemma3_text": ({}, {"rms_norm": 13, "gated_mlp": 2}),
    "gpt2": (NO_DROPOUT, {"gelu": 2}),
    "phi3": ({}, {"rms_norm": 5}),  # gate and up are one matrix there
    "gpt_neox": ({}, {}),
}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


def tiny(name: str, **special: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SMALL | special)).float()
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.rand_like(weight) - (0 if "gemma" in name else 0.5) * weight_name.count("norm"))
    return model


def result(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    logits = model(torch.arange(3, 60)[None]).logits
    logits.float().square().mean().backward()
    return logits.detach().float(), {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}


@DTYPES
@pytest.mark.parametrize("name", MODELS)
def test_equal_to_transformers(name: str, dtype: torch.dtype) -> None:
    special, kinds = MODELS[name]
    plain, ours = (tiny(name, **special).to(dtype) for _ in range(2))
    assert use_ours(ours) == kinds
    assert use_ours(ours) == {}, "done once"
    (logits, gradients), (logits2, gradients2) = result(plain), result(ours)
    exact = dtype == torch.float32
    torch.testing.assert_close(logits2, logits, rtol=1e-5 if exact else 0.02, atol=1e-5 if exact else 0.05)
    assert gradients.keys() == gradients2.keys()
    for weight, gradient in gradients.items():
        off = float((gradients2[weight] - gradient).norm() / gradient.norm().clamp(min=1e-9))
        assert off < (1e-5 if exact else 0.05), weight


class Holder(nn.Module):
    """A model of one module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def both(module: nn.Module, x: Tensor) -> list[list[Tensor]]:
    """[out, gradient of x, gradients of weights], transformers' own and ours."""
    results = []
    for ours in (False, True):
        if ours:
            assert sum(use_ours(Holder(module)).values()) == 1
        leaf = x.clone().requires_grad_(True)
        out = module(leaf)
        weights = list(module.parameters())
        given = torch.linspace(-1, 1, out.numel()).reshape(out.shape).sin().to(out.dtype)
        results.append([out.detach(), *torch.autograd.grad(out, [leaf, *weights], given)])
    return results


@DTYPES
@pytest.mark.parametrize("kind", [LlamaRMSNorm, Olmo2RMSNorm, Gemma3RMSNorm])
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_norm(kind: Any, eps: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = kind(48, eps=eps)
    nn.init.uniform_(norm.weight, -0.5, 1.5)
    x = torch.randn(2, 50, 3, 48) * torch.logspace(-3, 2, 50)[:, None, None]
    plain, ours = both(norm.to(dtype), x.to(dtype))
    for a, b in zip(plain, ours, strict=True):
        assert a.dtype == b.dtype == dtype and a.shape == b.shape
    same = (plain[0] == ours[0]).float().mean()
    assert same > (0.2 if dtype == torch.float32 else 0.98), "rounded at the same place"
    for a, b in zip(plain, ours, strict=True):
        off = (a.float() - b.float()).norm() / a.float().norm()
        assert off < (1e-6 if dtype == torch.float32 else 0.01)


@DTYPES
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_pytorch_tanh", "gelu_new"])
def test_gated_mlp(activation: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **SMALL | {"hidden_act": activation, "mlp_bias": True})
    mlp = LlamaMLP(config).to(dtype)
    plain, ours = both(mlp, torch.randn(2, 30, 32).to(dtype) * 4)
    for a, b in zip(plain, ours, strict=True):
        assert a.dtype == b.dtype == dtype
        off = (a.float() - b.float()).norm() / a.float().norm()
        assert off < (1e-6 if dtype == torch.float32 else 0.01)


def test_changed_code_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a later version of transformers might do; the names stay the same."""
    norm, mlp = LlamaRMSNorm.forward, LlamaMLP.forward

    def kinds(kind: Any, forward: Any) -> dict[str, int]:
        with monkeypatch.context() as patch:
            patch.setattr(kind, "forward", forward)
            return use_ours(tiny("llama"))

    def without_eps(self: Any, hidden_states: Tensor) -> Tensor:
        x = hidden_states.float()
        return self.weight * (x * x.square().mean(-1, keepdim=True).rsqrt()).to(hidden_states.dtype)

    def with_residual(self: Any, hidden_states: Tensor, residual: Tensor | None = None) -> Tensor:
        return norm(self, hidden_states if residual is None else hidden_states + residual)

    def with_dropout(self: Any, x: Tensor) -> Tensor:
        return nn.functional.dropout(mlp(self, x), 0.1, self.training)

    assert kinds(LlamaRMSNorm, lambda self, x: norm(self, x) * 1.001) == {"gated_mlp": 2}
    assert kinds(LlamaRMSNorm, without_eps) == {"gated_mlp": 2}
    assert kinds(LlamaRMSNorm, with_residual) == {"gated_mlp": 2}
    assert kinds(LlamaMLP, with_dropout) == {"rms_norm": 5}
    assert kinds(LlamaMLP, lambda self, x: mlp(self, x.clamp(max=1.0))) == {"rms_norm": 5}
    assert kinds(LlamaMLP, lambda self, x: mlp(self, x)) == LLAMA_LIKE


def test_unknown_activations_are_left_alone() -> None:
    assert use_ours(tiny("llama", hidden_act="quick_gelu")) == {"rms_norm": 5}
    assert use_ours(tiny("gpt2", activation_function="quick_gelu")) == {}


def test_random_numbers_and_modes_stay() -> None:
    model = tiny("gemma3_text").train()
    state = torch.get_rng_state()
    use_ours(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
