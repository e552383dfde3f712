"""An adapter beside weights in four bits: what is refused, what is held, and that it learns."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from peft.utils.integrations import dequantize_module_weight
from transformers import AutoModelForCausalLM

from ownchat.config import Config, load_config
from ownchat.errors import ConfigError
from ownchat.model import quantize
from ownchat.model.account import count, memory, read_config
from ownchat.model.block import make_block
from ownchat.model.load import can_pack, load_model
from ownchat.model.lora import add_lora
from ownchat.model.loss import negative_log_likelihood
from ownchat.model.score import score_documents
from ownchat.train.stage import run

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes: ownchat[gpu]")


def settings(*sets: str) -> Config:
    common = ["train.batch_tokens=400", "model.dtype=float32", "train.epochs=3", "train.validate_every=4"]
    return load_config(sets=["model.quantize=4bit", *common, *sets])[0]


def test_all_weights_cannot_be_trained_in_four_bits(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.quantize = 4bit, train\.method = full.*adapter(.|\n)*method=lora"):
        run(settings("train.method=full"), inputs, tmp_path / "5-train")
    assert not (tmp_path / "5-train").exists()


def test_bitsandbytes_is_asked_for(inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"bitsandbytes is not installed(.|\n)*ownchat\[gpu\]"):
        run(settings(), inputs, tmp_path / "5-train")
    with pytest.raises(ConfigError, match="bitsandbytes is not installed"):
        load_model(inputs["base"], quantize="4bit")
    quantize.check("4bit", "lora", here=False)  # for a plan of another machine
    quantize.check("none", "full")


def test_the_account_knows_four_bits(tiny_model: Path) -> None:
    plain, small = (
        count(read_config(tiny_model), method="lora", dtype="bfloat16", quantize=how) for how in ("none", "4bit")
    )
    rest = plain.parameters - plain.matrices  # embedding and norms
    assert small.quantized == plain.matrices == small.matrices
    assert small.base_bytes == pytest.approx(2 * rest + plain.matrices * 4.127 / 8, rel=1e-4)
    assert memory(plain, []).weights == 2 * plain.parameters > memory(small, []).weights == small.base_bytes
    assert small.activation_per_token > plain.activation_per_token, "PEFT's product keeps more than ours"


def held_bytes(model: Any) -> int:
    """Of all weights, scales included."""
    total = 0
    for weight in model.parameters():
        total += weight.numel() * weight.element_size()
        if (state := getattr(weight, "quant_state", None)) is not None:
            tensors = [state.absmax, state.state2.absmax]
            total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return total


@needs_bitsandbytes
def test_matrices_are_held_in_four_bits_and_documents_are_packed(tiny_model: Path) -> None:
    model = load_model(tiny_model, packed=True, quantize="4bit")
    account = count(read_config(tiny_model), method="lora", dtype="float32", quantize="4bit")
    assert held_bytes(model) == pytest.approx(account.base_bytes, rel=0.01)
    assert can_pack(model) and model.plain_head
    generator = np.random.default_rng(0)
    rows = [(generator.integers(3, 300, length), np.ones(length, np.uint8)) for length in (9, 30, 17)]
    alone = [score_documents(model, [row])[0] for row in rows]
    for together, one in zip(score_documents(model, rows), alone, strict=True):
        np.testing.assert_allclose(together, one, atol=1e-4)
    exact = np.concatenate(score_documents(load_model(tiny_model, packed=True), rows))
    off = np.abs(np.concatenate(alone) - exact).mean()
    assert 1e-3 < off < 0.5, "rounded to four bits, and still the same model"


@needs_bitsandbytes
def test_only_the_adapter_is_trained(tiny_model: Path) -> None:
    model = load_model(tiny_model, packed=True, quantize="4bit")
    add_lora(model, rank=2, alpha=4, seed=0)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)


@needs_bitsandbytes
def test_gradients_are_those_of_the_rounded_weights(tiny_model: Path) -> None:
    """Also after an evaluation, in which some kernels that have no gradient would lay the weights out anew."""
    generator = np.random.default_rng(0)
    rows = [(generator.integers(3, 300, length), np.ones(length, np.uint8)) for length in (9, 30, 17)]
    small, whole = load_model(tiny_model, packed=True, quantize="4bit"), load_model(tiny_model, packed=True)
    quantised = dict(small.named_modules())
    with torch.no_grad():
        for name, module in whole.named_modules():
            if type(quantised[name]) is not type(module):
                module.weight.copy_(dequantize_module_weight(quantised[name]))
    gradients = []
    for model in (small, whole):
        add_lora(model, rank=2, alpha=4, seed=0)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(torch.ones_like(weight).cumsum(0).sin() * 0.1)
        score_documents(model, rows)
        model.train()
        negative_log_likelihood(model, make_block(rows)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) == 28
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=2e-3, atol=2e-3, msg=name)


@needs_bitsandbytes
def test_it_learns_and_the_result_is_standard(inputs: dict[str, Path], tmp_path: Path) -> None:
    facts = run(settings(), inputs, tmp_path / "5-train").details
    assert facts["quantize"] == "4bit" and facts["attention"] == "packed"
    assert facts["best_loss"] < facts["base_loss"] - 0.5
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "5-train" / "model").eval()
    assert model.dtype == torch.float32 and not hasattr(model.config, "quantization_config")
    base = AutoModelForCausalLM.from_pretrained(inputs["base"])
    adapted = PeftModel.from_pretrained(base, tmp_path / "5-train" / "adapter").eval()
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
