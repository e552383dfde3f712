"""Our LoRA product equals PEFT's: outputs and gradients; the saved adapter is a plain PEFT adapter."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config

from ownchat.generate.export import merge_adapter
from ownchat.model.block import make_block
from ownchat.model.load import load_model
from ownchat.model.lora import add_lora, load_adapter, use_our_products
from ownchat.model.loss import negative_log_likelihood

VARIANTS = ("lora", "rslora", "dora")


def pefts(directory: Path, variant: str) -> Any:
    """The same adapter in plain PEFT."""
    settings = LoraConfig(
        r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", use_rslora=variant == "rslora",
        use_dora=variant == "dora",
    )  # fmt: skip
    return get_peft_model(load_model(directory, packed=True), settings)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conv1D layers, whose matrices lie the other way, and biases."""
    settings = GPT2Config(
        vocab_size=300, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0, resid_pdrop=0, embd_pdrop=0,
        attn_pdrop=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):  # zeros at first: nothing would show
                weight.normal_(std=0.1)
    directory = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(directory)
    return directory


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def shake(model: Any) -> None:
    """Both matrices of every adapter away from their start, so that every gradient is there; DoRA's lengths as well."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in trained(model).values():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise * 0.05 if weight.ndim > 1 else weight * (1 + 0.1 * noise))


def check_gradients(ours: Any, theirs: Any) -> None:
    assert trained(ours).keys() == trained(theirs).keys()
    for name, weight in trained(theirs).items():
        torch.testing.assert_close(trained(ours)[name].grad, weight.grad, rtol=1e-4, atol=3e-6, msg=name)


@pytest.fixture
def block() -> Any:
    generator = np.random.default_rng(0)
    return make_block([(generator.integers(3, 300, n), np.ones(n, np.uint8)) for n in (20, 31)])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_product_equals_pefts(architecture: str, variant: Any, tiny_model: Path, gpt2: Path, block: Any) -> None:
    directory = tiny_model if architecture == "llama" else gpt2
    ours, theirs = (
        add_lora(load_model(directory, packed=True), rank=8, alpha=16, seed=0, variant=variant),
        pefts(directory, variant),
    )
    of_each = 3 if variant == "dora" else 2  # A, B, and DoRA's lengths
    assert len(trained(ours)) == 2 * of_each * (7 if architecture == "llama" else 4)
    assert use_our_products(ours) == ([3, 1, 2, 1] * 2 if architecture == "llama" else [1] * 8)
    shake(ours)
    shake(theirs)
    losses = [negative_log_likelihood(model.get_base_model(), block) for model in (ours, theirs)]
    for loss in losses:
        loss.backward()
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()), rel=1e-6)
    check_gradients(ours, theirs)


def test_rslora_is_scaled_by_the_root_of_the_rank(tiny_model: Path) -> None:
    model = add_lora(load_model(tiny_model, packed=True), rank=9, alpha=16, seed=0, variant="rslora")
    scales = {layer.scaling["default"] for layer in model.modules() if hasattr(layer, "lora_A")}
    assert scales == {16 / math.sqrt(9)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_stays_close_and_keeps_float32_weights(variant: Any, tiny_model: Path, block: Any) -> None:
    exact = add_lora(load_model(tiny_model, packed=True), rank=8, alpha=16, seed=0, variant=variant)
    rough = add_lora(load_model(tiny_model, dtype="bfloat16", packed=True), rank=8, alpha=16, seed=0, variant=variant)
    for model in (exact, rough):
        shake(model)
        negative_log_likelihood(model.get_base_model(), block).backward()
    for name, weight in trained(rough).items():
        assert weight.dtype == torch.float32 and weight.grad is not None and weight.grad.dtype == torch.float32
        wanted = trained(exact)[name].grad
        assert wanted is not None
        assert float((weight.grad - wanted).norm() / wanted.norm()) < 0.1, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_start_is_the_base_and_depends_on_the_seed_alone(variant: Any, tiny_model: Path, block: Any) -> None:
    base = load_model(tiny_model, packed=True)
    with torch.no_grad():
        before = float(negative_log_likelihood(base, block))
        torch.manual_seed(99)
        first = add_lora(base, rank=8, alpha=16, seed=5, variant=variant)
        assert float(negative_log_likelihood(first.get_base_model(), block)) == pytest.approx(before, rel=1e-6)
    torch.manual_seed(7)
    second = add_lora(load_model(tiny_model), rank=8, alpha=16, seed=5, variant=variant)
    other = add_lora(load_model(tiny_model), rank=8, alpha=16, seed=6, variant=variant)
    same = [torch.equal(a, b) for a, b in zip(trained(first).values(), trained(second).values(), strict=True)]
    assert all(same)
    assert not torch.equal(next(iter(trained(other).values())), next(iter(trained(first).values())))


def test_doras_lengths_start_exactly_in_bfloat16(tiny_model: Path, block: Any) -> None:
    """PEFT measures them in bfloat16, so that its first output is not quite the base's."""
    base = load_model(tiny_model, dtype="bfloat16", packed=True)
    lora = add_lora(load_model(tiny_model, dtype="bfloat16", packed=True), rank=8, alpha=16, seed=0)
    dora = add_lora(base, rank=8, alpha=16, seed=0, variant="dora")
    with torch.no_grad():
        scores = [float(negative_log_likelihood(model.get_base_model(), block)) for model in (lora, dora)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_adapter_opens_in_plain_peft(
    architecture: str, variant: Any, tiny_model: Path, gpt2: Path, tmp_path: Path, block: Any
) -> None:
    base = tiny_model if architecture == "llama" else gpt2
    ours = add_lora(load_model(base), rank=8, alpha=16, seed=0, variant=variant)
    shake(ours)
    ours.save_pretrained(str(tmp_path))
    said = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (said["use_rslora"], said["use_dora"]) == (variant == "rslora", variant == "dora")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path).eval()
    again = load_adapter(load_model(base), tmp_path).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        wanted = plain(ids).logits
        torch.testing.assert_close(again(ids).logits, wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.eval()(ids).logits, wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(plain.merge_and_unload()(ids).logits, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_is_what_peft_merges(variant: Any, tiny_model: Path, tmp_path: Path) -> None:
    ours = add_lora(load_model(tiny_model), rank=8, alpha=16, seed=0, variant=variant)
    shake(ours)
    ours.save_pretrained(str(tmp_path / "adapter"))
    mine = AutoModelForCausalLM.from_pretrained(merge_adapter(tiny_model, tmp_path / "adapter", tmp_path / "merged"))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "adapter")
    wanted = dict(plain.merge_and_unload().named_parameters())
    base = dict(AutoModelForCausalLM.from_pretrained(tiny_model).named_parameters())
    changed = 0
    for name, weight in mine.named_parameters():
        assert torch.equal(weight, wanted[name]), name
        changed += not torch.equal(weight, base[name])
    assert changed == 14


def test_projections_with_one_input_are_one_product(tiny_model: Path) -> None:
    model = load_model(tiny_model, packed=True)
    wrapped = add_lora(model, rank=8, alpha=16, seed=0)
    assert use_our_products(wrapped) == [3, 1, 2, 1] * 2, "q k v, o, gate up, down, in each of two layers"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_that_moves_or_is_cast_is_still_right(variant: Any, tiny_model: Path, block: Any) -> None:
    model = add_lora(load_model(tiny_model, packed=True), rank=8, alpha=16, seed=0, variant=variant)
    shake(model)
    with torch.no_grad():
        before = float(negative_log_likelihood(model.get_base_model(), block))
        with model.disable_adapter():
            base = float(negative_log_likelihood(model.get_base_model(), block))
        assert base != pytest.approx(before, rel=1e-3)
        merged = model.merge_and_unload()
        assert float(negative_log_likelihood(merged, block)) == pytest.approx(before, rel=1e-5)
        cast = add_lora(load_model(tiny_model, packed=True), rank=8, alpha=16, seed=0, variant=variant)
        shake(cast)
        cast.get_base_model().bfloat16()
        assert float(negative_log_likelihood(cast.get_base_model(), block)) == pytest.approx(before, rel=1e-2)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_adapters_of_others_load(tiny_model: Path, tmp_path: Path, block: Any, dropout: float, dora: bool) -> None:
    """Ranks that differ, dropout: PEFT's own code where ours would be wrong."""
    settings = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"], rank_pattern={"v_proj": 6},
        lora_dropout=dropout, task_type="CAUSAL_LM", use_dora=dora,
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
