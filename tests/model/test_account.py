"""The account against the truth: real models of several architectures, torch's own counter, what autograd keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig, Qwen3Config, Qwen3MoeConfig

from ownchat.model import account as accounts
from ownchat.model import attention, elementwise
from ownchat.model.account import BlockSize
from ownchat.model.block import make_block
from ownchat.model.lora import add_lora
from ownchat.model.loss import negative_log_likelihood

SHAPE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 24, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama-untied": LlamaConfig(**SHAPE, tie_word_embeddings=False, attention_bias=True),
    "gpt2": GPT2Config(vocab_size=300, n_embd=64, n_layer=3, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2),
    "qwen3": Qwen3Config(**SHAPE),
    "gemma3": Gemma3TextConfig(**SHAPE, query_pre_attn_scalar=24, sliding_window=64),
}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> Any:
    return CONFIGS[request.param]


def real(config: Any, implementation: str = "eager") -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=implementation)


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_parameters_and_adapter_are_those_of_the_real_model(variant: Any, config: Any) -> None:
    model = real(config)
    account = accounts.count(config, method="lora", dtype="float32", rank=5, variant=variant)
    assert account.parameters == model.num_parameters(), "tied weights count once"
    add_lora(model, rank=5, alpha=5, seed=0, variant=variant)
    assert account.adapter == account.trained == sum(w.numel() for w in model.parameters() if w.requires_grad)
    full = accounts.count(config, method="full", dtype="float32")
    assert (full.adapter, full.trained) == (0, account.parameters)


def test_configuration_is_left_as_it_was(config: Any) -> None:
    before = config.to_json_string()
    accounts.count(config, method="lora", dtype="bfloat16")
    assert config.to_json_string() == before


def test_flops_are_those_that_torch_counts(config: Any) -> None:
    model, tokens = real(config).train(), 48
    ids = torch.arange(tokens)[None]
    account = accounts.count(config, method="full", dtype="float32")
    size = BlockSize(tokens, tokens * tokens, tokens, short_cells=tokens * tokens)
    with FlopCounterMode(display=False) as forward:
        logits = model(input_ids=ids, use_cache=False).logits
    # rotary angles are a matrix product too: width x tokens of it
    assert accounts.forward_flops(account, size) == pytest.approx(forward.get_total_flops(), rel=2e-3)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    counted = forward.get_total_flops() + backward.get_total_flops()
    assert accounts.training_flops(account, size) == pytest.approx(counted, rel=2e-3)


def test_an_adapter_saves_the_gradient_of_frozen_weights() -> None:
    """PEFT's own product, which torch can count; the first layer's input needs no gradient, which is not modelled."""
    config, tokens = CONFIGS["llama"], 48
    model = real(config)
    add_lora(model, rank=4, alpha=4, seed=0)
    for module in model.modules():
        if hasattr(module, "lora_A"):
            del module.__dict__["forward"]
    size = BlockSize(tokens, tokens * tokens, tokens, short_cells=tokens * tokens)
    with FlopCounterMode(display=False) as counter:
        model.train()(input_ids=torch.arange(tokens)[None], use_cache=False).logits.sum().backward()
    account = accounts.count(config, method="lora", dtype="float32", rank=4)
    first_inputs = 2 * tokens * 64 * (4 * 24 + 2 * 2 * 24)
    assert accounts.training_flops(account, size) - first_inputs == pytest.approx(counter.get_total_flops(), rel=5e-3)
    full = accounts.count(config, method="full", dtype="float32")
    assert accounts.training_flops(account, size) < 0.8 * accounts.training_flops(full, size)


@pytest.mark.parametrize("trained", ["lora", "dora", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_activations_are_what_autograd_keeps(name: str, dtype: Any, trained: Any) -> None:
    """The packed path of training, on documents of unlike lengths with a common opening."""
    config = CONFIGS[name]
    method, variant = ("full", "lora") if trained == "full" else ("lora", trained)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config, dtype=accounts.DTYPES[dtype], attn_implementation=attention.NAME
    ).train()
    model.plain_head = True
    elementwise.use_ours(model)
    if method == "lora":
        add_lora(model, rank=4, alpha=4, seed=0, variant=variant)
    rng = np.random.default_rng(0)
    documents = [
        (np.r_[np.arange(12), rng.integers(20, 299, length)], np.r_[np.zeros(12), np.ones(length)].astype(np.uint8))
        for length in (50, 55, 60, 61, 64, 64, 80, 90)
    ]
    mine = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in mine:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = negative_log_likelihood(model, make_block(documents))
    held = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    loss.backward()
    account = accounts.count(config, method=method, dtype=dtype, rank=4, variant=variant)
    assert account.packed
    # the grid's pads, a tile's mask and places of tokens are not modelled; this model's layers are tiny beside them
    assert accounts.activation_bytes(account, accounts.size_of(documents)) == pytest.approx(held, rel=0.2)


def test_making_activations_again_costs_a_forward_pass_and_saves_memory() -> None:
    size = BlockSize(2048, 2048 * 128, 1024, 2048 * 128)
    keep = accounts.count(CONFIGS["llama"], method="lora", dtype="bfloat16")
    again = accounts.count(CONFIGS["llama"], method="lora", dtype="bfloat16", activations="recompute")
    assert accounts.activation_bytes(again, size) < 0.5 * accounts.activation_bytes(keep, size)
    more = accounts.training_flops(again, size) - accounts.training_flops(keep, size)
    assert more == accounts.forward_flops(keep, size)


def test_of_experts_a_token_meets_only_some() -> None:
    shape = SHAPE | {"num_hidden_layers": 2}
    config = Qwen3MoeConfig(**shape, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32)
    account = accounts.count(config, method="full", dtype="float32")
    assert account.parameters == real(config).num_parameters()
    attended = 2 * (64 * 24 * (4 + 2 + 2) + 24 * 4 * 64)
    router = 0 if account.matrices == attended + 2 * 2 * 3 * 64 * 32 else 2 * 8 * 64
    assert account.matrices == attended + router + 2 * 2 * 3 * 64 * 32


def test_memory_adds_up_and_shards_share() -> None:
    account = accounts.count(CONFIGS["llama"], method="full", dtype="bfloat16")
    one = accounts.memory(account, [BlockSize(1000, 10**5, 500)], device="cuda")
    assert (one.weights, one.masters, one.gradients, one.optimizer) == tuple(
        account.parameters * n for n in (2, 4, 4, 8)
    )
    assert one.peak >= one.fixed + one.activations > one.weights + one.masters + one.gradients + one.optimizer
    eight = accounts.memory(account, [BlockSize(1000, 10**5, 500)], device="cuda", shards=8)
    assert eight.optimizer == one.optimizer // 8 and eight.activations == one.activations
