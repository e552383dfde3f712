"""Our LoRA product equals PEFT's: outputs and gradients; the saved adapter is a plain PEFT adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config

from ownchat.model.block import make_block
from ownchat.model.load import load_model
from ownchat.model.lora import add_lora, load_adapter, use_our_products
from ownchat.model.loss import negative_log_likelihood


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def shake(model: Any) -> None:
    """Both matrices of every adapter away from their start, so that every gradient is there."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in trained(model).values():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)


@pytest.fixture
def block() -> Any:
    generator = np.random.default_rng(0)
    return make_block([(generator.integers(3, 300, n), np.ones(n, np.uint8)) for n in (20, 31)])


def test_product_equals_pefts(tiny_model: Path, block: Any) -> None:
    ours = add_lora(load_model(tiny_model, packed=True), rank=8, alpha=16, seed=0)
    plain = load_model(tiny_model, packed=True)
    theirs = get_peft_model(plain, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert len(trained(ours)) == 2 * 2 * 7, "A and B of seven projections in two layers"
    assert trained(ours).keys() == trained(theirs).keys()
    shake(ours)
    shake(theirs)
    losses = [negative_log_likelihood(model.get_base_model(), block) for model in (ours, theirs)]
    for loss in losses:
        loss.backward()
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()), rel=1e-6)
    for name, weight in trained(theirs).items():
        torch.testing.assert_close(trained(ours)[name].grad, weight.grad, rtol=1e-4, atol=3e-6, msg=name)


def test_bfloat16_stays_close_and_keeps_float32_weights(tiny_model: Path, block: Any) -> None:
    exact = add_lora(load_model(tiny_model, packed=True), rank=8, alpha=16, seed=0)
    rough = add_lora(load_model(tiny_model, dtype="bfloat16", packed=True), rank=8, alpha=16, seed=0)
    for model in (exact, rough):
        shake(model)
        negative_log_likelihood(model.get_base_model(), block).backward()
    for name, weight in trained(rough).items():
        assert weight.dtype == torch.float32 and weight.grad is not None and weight.grad.dtype == torch.float32
        wanted = trained(exact)[name].grad
        assert wanted is not None
        assert float((weight.grad - wanted).norm() / wanted.norm()) < 0.1, name


def test_start_is_the_base_and_depends_on_the_seed_alone(tiny_model: Path, block: Any) -> None:
    base = load_model(tiny_model, packed=True)
    with torch.no_grad():
        before = float(negative_log_likelihood(base, block))
        torch.manual_seed(99)
        first = add_lora(base, rank=8, alpha=16, seed=5)
        assert float(negative_log_likelihood(first.get_base_model(), block)) == pytest.approx(before, rel=1e-6)
    torch.manual_seed(7)
    second = add_lora(load_model(tiny_model), rank=8, alpha=16, seed=5)
    other = add_lora(load_model(tiny_model), rank=8, alpha=16, seed=6)
    same = [torch.equal(a, b) for a, b in zip(trained(first).values(), trained(second).values(), strict=True)]
    assert all(same)
    assert not torch.equal(next(iter(trained(other).values())), next(iter(trained(first).values())))


def test_adapter_opens_in_plain_peft(tiny_model: Path, tmp_path: Path, block: Any) -> None:
    ours = add_lora(load_model(tiny_model), rank=8, alpha=16, seed=0)
    shake(ours)
    ours.save_pretrained(str(tmp_path))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path).eval()
    again = load_adapter(load_model(tiny_model), tmp_path).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.eval()(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)


def test_projections_with_one_input_are_one_product(tiny_model: Path) -> None:
    model = load_model(tiny_model, packed=True)
    wrapped = add_lora(model, rank=8, alpha=16, seed=0)
    assert use_our_products(wrapped) == [3, 1, 2, 1] * 2, "q k v, o, gate up, down, in each of two layers"


def test_a_model_that_moves_or_is_cast_is_still_right(tiny_model: Path, block: Any) -> None:
    model = add_lora(load_model(tiny_model, packed=True), rank=8, alpha=16, seed=0)
    shake(model)
    with torch.no_grad():
        before = float(negative_log_likelihood(model.get_base_model(), block))
        with model.disable_adapter():
            base = float(negative_log_likelihood(model.get_base_model(), block))
        assert base != pytest.approx(before, rel=1e-3)
        merged = model.merge_and_unload()
        assert float(negative_log_likelihood(merged, block)) == pytest.approx(before, rel=1e-5)
        cast = add_lora(load_model(tiny_model, packed=True), rank=8, alpha=16, seed=0)
        shake(cast)
        cast.get_base_model().bfloat16()
        assert float(negative_log_likelihood(cast.get_base_model(), block)) == pytest.approx(before, rel=1e-2)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_adapters_of_others_load(tiny_model: Path, tmp_path: Path, block: Any, dropout: float) -> None:
    """Ranks that differ, dropout: PEFT's own code where ours would be wrong."""
    settings = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"], rank_pattern={"v_proj": 6},
        lora_dropout=dropout, task_type="CAUSAL_LM",
    )  # fmt: skip
    theirs = get_peft_model(load_model(tiny_model, packed=True), settings)
    shake(theirs)
    theirs.save_pretrained(str(tmp_path))
    ours = load_adapter(load_model(tiny_model, packed=True), tmp_path, trainable=True)
    for model in (ours, theirs):
        model.train()
        torch.manual_seed(0)
        negative_log_likelihood(model.get_base_model(), block).backward()
    for name, weight in trained(theirs).items():
        torch.testing.assert_close(trained(ours)[name].grad, weight.grad, rtol=1e-4, atol=3e-6, msg=name)


def test_gpt2_takes_our_product(tmp_path: Path, block: Any) -> None:
    settings = GPT2Config(
        vocab_size=300, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0, resid_pdrop=0, embd_pdrop=0,
        attn_pdrop=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path)
    ours = add_lora(load_model(tmp_path, packed=True), rank=8, alpha=16, seed=0)
    assert use_our_products(ours) == [1] * 8
    plain = load_model(tmp_path, packed=True)
    theirs = get_peft_model(plain, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    for model in (ours, theirs):
        shake(model)
        negative_log_likelihood(model.get_base_model(), block).backward()
    for name, weight in trained(theirs).items():
        torch.testing.assert_close(trained(ours)[name].grad, weight.grad, rtol=1e-4, atol=3e-6, msg=name)
