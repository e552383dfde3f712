"""Hand-written gradients equal transformers' own modules, in float32 and near them in bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from ownchat.model.elementwise import use_ours

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip


def result(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logits = model(torch.arange(3, 60)[None]).logits
    logits.float().square().mean().backward()
    return logits.detach().float(), {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("config", "modules"),
    [(LlamaConfig, 7), (MistralConfig, 7), (Qwen2Config, 7), (Qwen3Config, 11), (Gemma2Config, 0)],
    ids=["llama", "mistral", "qwen2", "qwen3", "gemma2 is left alone"],
)
def test_equal_to_transformers(config: Any, modules: int, dtype: torch.dtype) -> None:
    pair = []
    for ours in (False, True):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config(**SMALL, initializer_range=0.2)).to(dtype)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" in name:
                    weight.uniform_(0.5, 1.5)
        if ours:
            assert use_ours(model) == modules
        pair.append(result(model))
    (logits, gradients), (logits2, gradients2) = pair
    exact = dtype == torch.float32
    torch.testing.assert_close(logits2, logits, rtol=1e-5 if exact else 0.02, atol=1e-5 if exact else 0.05)
    assert gradients.keys() == gradients2.keys()
    for name, gradient in gradients.items():
        off = float((gradients2[name] - gradient).norm() / gradient.norm().clamp(min=1e-9))
        assert off < (1e-5 if exact else 0.05), name
