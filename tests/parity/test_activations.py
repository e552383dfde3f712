"""Activations kept, made again or held elsewhere: the same loss and gradients, and less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from ownchat.errors import ConfigError
from ownchat.model import attention
from ownchat.model.activations import Activations, check_device, possible, use_activations
from ownchat.model.block import Document, make_block
from ownchat.model.load import can_pack, load_model
from ownchat.model.lora import add_lora
from ownchat.model.loss import negative_log_likelihood

GENERATOR = np.random.default_rng(0)
SYSTEM = GENERATOR.integers(3, 300, 10)
ROWS: list[Document] = [
    (np.r_[SYSTEM, GENERATOR.integers(3, 300, length)], np.ones(length + 10, np.uint8)) for length in (12, 40, 33)
]


def result(model: Any, how: Activations) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss, gradients, and the bytes that the forward pass left for the backward pass, weights aside."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    use_activations(model, how)
    model.train()
    model.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = negative_log_likelihood(model, make_block(ROWS, packed=can_pack(model)))
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return float(loss.detach()), gradients, sum(kept.values())


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_recomputed_equals_kept(tiny_model: Path, method: str, packed: bool) -> None:
    model = load_model(tiny_model, packed=packed)
    if method == "lora":
        add_lora(model, rank=4, alpha=8, seed=0)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)  # they begin with zero, which hides the gradient of A
    else:
        model.requires_grad_(True)
    assert can_pack(model) == packed
    wanted, gradients, bytes_kept = result(model, "keep")
    again, others, bytes_recomputed = result(model, "recompute")
    assert again == pytest.approx(wanted, rel=1e-6)
    assert gradients.keys() == others.keys() and len(gradients) > 10
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
    assert bytes_recomputed < bytes_kept / 3
    assert result(model, "keep")[2] == bytes_kept, "it can be switched back"


def test_dropout_is_the_same_when_made_again() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0.3)
    model = AutoModelForCausalLM.from_config(config).float()
    wanted, gradients, bytes_kept = result(model, "keep")
    again, others, bytes_recomputed = result(model, "recompute")
    assert again == pytest.approx(wanted, rel=1e-6) and bytes_recomputed < bytes_kept / 2
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_what_a_model_cannot_do_is_said() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME)
    with pytest.raises(ConfigError, match="nothing to offload them from"):
        check_device("offload", "cpu")
    if not torch.cuda.is_available():
        assert possible(model) == ("keep", "recompute")
        with pytest.raises(ConfigError, match=r"train\.activations=recompute"):
            use_activations(model, "offload")
    plain = torch.nn.Linear(2, 2)
    assert possible(plain) == ("keep",)
    use_activations(plain, "keep")
    with pytest.raises(ConfigError, match=r"\(Linear\) cannot make their activations again"):
        use_activations(plain, "recompute")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_offloaded_equals_kept(tiny_model: Path) -> None:
    model = load_model(tiny_model, packed=True)
    add_lora(model, rank=4, alpha=8, seed=0)
    wanted, gradients, _ = result(model, "keep")
    again, others, _ = result(model, "offload")
    assert again == pytest.approx(wanted, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
