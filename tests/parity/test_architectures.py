"""Every architecture: our loss and gradients equal plain transformers', one document at a time.

For the listed ones also that they take the fast path: packed, with our norms, gates and LoRA products in use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from ownchat.model import trial
from ownchat.model.block import Document, make_block
from ownchat.model.load import can_pack, load_model
from ownchat.model.lora import add_lora, use_our_products
from ownchat.model.loss import negative_log_likelihood

LAYERS = 3
SMALL: dict[str, Any] = {
    "vocab_size": 199, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.1,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
WINDOW = {"sliding_window": 7}  # shorter than the documents
LLAMA_LIKE = {"rms_norm": 2 * LAYERS + 1, "gated_mlp": LAYERS}
QKV_GATE_UP = [3, 1, 2, 1] * LAYERS  # LoRA: projections of one product
# name: model type, what is special, fusions, LoRA products
FAST: dict[str, tuple[str, dict[str, Any], dict[str, int], list[int]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}, LLAMA_LIKE, QKV_GATE_UP),
    "smollm": (
        "llama",
        {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True},
        LLAMA_LIKE,
        QKV_GATE_UP,
    ),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0, 1]}, LLAMA_LIKE, QKV_GATE_UP),
    "qwen2": ("qwen2", {}, LLAMA_LIKE, QKV_GATE_UP),
    "qwen3": ("qwen3", {"head_dim": 16}, {**LLAMA_LIKE, "rms_norm": 4 * LAYERS + 1}, QKV_GATE_UP),
    "mistral": ("mistral", WINDOW, LLAMA_LIKE, QKV_GATE_UP),
    "gemma3": (
        "gemma3_text",
        {
            **WINDOW, "head_dim": 16, "query_pre_attn_scalar": 24, "final_logit_softcapping": 5.0,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        {"rms_norm": 6 * LAYERS + 1, "gated_mlp": LAYERS},
        QKV_GATE_UP,
    ),
    "gpt2": ("gpt2", {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}, {"gelu": LAYERS}, [1, 1, 1, 1] * LAYERS),
}  # fmt: skip

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GPT = {"n_embd": 64, "n_head": 4, "n_positions": 128}
HYBRID = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
LINEAR_ATTENTION = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
}  # fmt: skip
# name: what is special, and whether it packs (None: either way is right)
GENERAL: dict[str, tuple[dict[str, Any], bool | None]] = {
    "gemma2": ({**WINDOW, "head_dim": 16, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 2.0}, None),
    "phi3": ({**WINDOW}, True),
    "phi": ({}, True),
    "gpt_neox": ({}, True),
    "gpt_neo": (
        {"attention_types": [[["global", "local"], 1]], "window_size": 6, "num_hidden_layers": 2},
        None,
    ),
    "gptj": ({**GPT, "rotary_dim": 8}, None),
    "gpt_bigcode": (GPT, None),
    "opt": ({"ffn_dim": 96, "word_embed_proj_dim": 64, "dropout": 0.0}, True),
    "bloom": ({}, None),
    "falcon": ({"alibi": True, "new_decoder_architecture": False}, None),
    "mpt": ({"d_model": 64, "n_heads": 4, "max_seq_len": 128}, None),
    "olmo2": ({}, True),
    "granite": ({"logits_scaling": 3.0, "attention_multiplier": 0.3, "residual_multiplier": 0.7}, True),
    "stablelm": ({}, None),
    "cohere": ({"logit_scale": 0.25}, True),
    "cohere2": ({**WINDOW, "logit_scale": 0.25}, True),
    "starcoder2": ({**WINDOW}, True),
    "exaone4": ({**WINDOW}, True),
    "mixtral": (LOCAL_EXPERTS, True),
    "qwen3_moe": ({**EXPERTS, "head_dim": 16}, True),
    "gpt_oss": ({**LOCAL_EXPERTS, **WINDOW, "head_dim": 16}, None),  # sinks
    "deepseek_v3": (
        {
            "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
            "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
            "moe_intermediate_size": 32, "num_key_value_heads": 4,
        },
        True,
    ),
    # What one token leaves behind in a state, and not in attention, would pass from one packed document to the next.
    "mamba": ({"state_size": 8}, False),
    "mamba2": ({"num_heads": 8, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8}, False),
    "rwkv": ({"attention_hidden_size": 64, "context_length": 128}, False),
    "recurrent_gemma": ({"lru_width": 64, "attention_window_size": 8}, False),
    "xlstm": ({"num_heads": 4, "num_blocks": 2, "chunk_size": 8}, False),
    "jamba": (
        {
            "num_experts": 2, "mamba_d_state": 8, "use_mamba_kernels": False, "attn_layer_period": 2,
            "attn_layer_offset": 0, "expert_layer_period": 2, "expert_layer_offset": 1,
        },
        False,
    ),
    "falcon_h1": ({**HYBRID, "mamba_d_ssm": 64, "head_dim": 16}, False),
    "lfm2": ({"layer_types": ["full_attention", "conv", "full_attention"]}, False),  # conv neither first nor last
    "qwen3_next": (
        {**EXPERTS, **LINEAR_ATTENTION, "shared_expert_intermediate_size": 32, "head_dim": 16,
         "layer_types": ["full_attention", "linear_attention", "full_attention"]},
        False,
    ),
    # Attention in chunks of tokens, longer than the trial's documents and shorter than these.
    "llama4_text": ({**LOCAL_EXPERTS, "head_dim": 16, "attention_chunk_size": 24, "intermediate_size_mlp": 64}, False),
    "roberta": ({"is_decoder": True, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}, None),
}  # fmt: skip


def documents() -> list[Document]:
    """Of unlike lengths, with a shared opening, and some tokens trained."""
    generator = np.random.default_rng(3)
    opening = generator.integers(3, 199, 10)
    rows = [np.concatenate([opening, generator.integers(3, 199, length)]) for length in (3, 40, 21, 1)]
    return [(ids, (generator.random(len(ids)) < 0.6).astype(np.uint8)) for ids in rows]


def save(directory: Path, model_type: str, special: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SMALL | special)).float()
    with torch.no_grad():
        for weight in model.parameters():  # norms, biases and sinks begin as ones or zeros: nothing would show
            weight.add_(torch.randn_like(weight), alpha=0.05)
    model.save_pretrained(directory)
    return directory


def ours(model: Any, rows: list[Document]) -> float:
    model.zero_grad(set_to_none=True)
    loss = negative_log_likelihood(model, make_block(rows, packed=can_pack(model)))
    loss.backward()
    return float(loss.detach())


def theirs(model: Any, rows: list[Document]) -> float:
    """Nothing of ours: logits, cross-entropy, one document at a time."""
    total = torch.zeros(())
    for ids, weights in rows:
        tokens, trained = torch.tensor(ids), torch.tensor(weights[1:]) == 1
        logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1].float()
        total = total + cross_entropy(logits[trained], tokens[1:][trained], reduction="sum")
    total.backward()
    return float(total.detach())


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def check_gradients(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys() and wanted
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        # A bias on all keys changes no softmax: its gradient is zero but for rounding, in both.
        size = max(float(gradient.abs().max()), 1e-3 * largest)
        assert float((got[name] - gradient).abs().max()) < 1e-4 * size, name


def plain_model(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").train()


def fusions(model: torch.nn.Module) -> int:
    return sum("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("name", FAST)
def test_fast_path(name: str, tmp_path: Path) -> None:
    model_type, special, kinds, _ = FAST[name]
    model = load_model(save(tmp_path, model_type, special), packed=True).train()
    assert can_pack(model)
    assert fusions(model) == sum(kinds.values())
    plain, rows = plain_model(tmp_path), documents()
    assert ours(model, rows) == pytest.approx(theirs(plain, rows), rel=1e-5)
    assert len(gradients(plain)) == len(list(plain.parameters()))
    check_gradients(gradients(model), gradients(plain))


@pytest.mark.parametrize("name", FAST)
def test_fast_path_lora(name: str, tmp_path: Path) -> None:
    model_type, special, kinds, products = FAST[name]
    wrapped = add_lora(load_model(save(tmp_path, model_type, special), packed=True), rank=4, alpha=8, seed=0).train()
    settings = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    plain = get_peft_model(plain_model(tmp_path), settings)
    adapters = {weight_name: weight for weight_name, weight in plain.named_parameters() if weight.requires_grad}
    with torch.no_grad():
        for weight_name, weight in wrapped.named_parameters():
            if weight.requires_grad:
                adapters[weight_name].copy_(weight.normal_(std=0.1))  # B too: with B zero, A has no gradient
    model, rows = wrapped.get_base_model(), documents()
    assert can_pack(model)
    assert use_our_products(wrapped) == products
    assert fusions(model) == sum(kinds.values()) + sum(products)
    assert ours(model, rows) == pytest.approx(theirs(plain, rows), rel=1e-5)
    assert len(gradients(plain)) == len(adapters) == 2 * sum(products)
    check_gradients(gradients(wrapped), gradients(plain))


@pytest.mark.parametrize("name", GENERAL)
def test_general_path(name: str, tmp_path: Path) -> None:
    special, packs = GENERAL[name]
    model = load_model(save(tmp_path, name, special), packed=True)
    if packs is not None:
        assert can_pack(model) == packs
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    rows = documents()
    assert ours(model, rows) == pytest.approx(theirs(plain, rows), rel=1e-5)
    check_gradients(gradients(model), gradients(plain))


@pytest.mark.parametrize("special", [{"scale_attn_by_inverse_layer_idx": True}, {"reorder_and_upcast_attn": True}])
def test_switches_of_gpt2(special: dict[str, Any], tmp_path: Path) -> None:
    model = load_model(save(tmp_path, "gpt2", special), packed=True)
    assert can_pack(model), "dropout, which these have, is no hindrance"
    plain, rows = plain_model(tmp_path).eval(), documents()
    assert ours(model, rows) == pytest.approx(theirs(plain, rows), rel=1e-5)


def test_a_trial_leaves_the_random_state(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save(tmp_path, "qwen3", {"head_dim": 16}))
    torch.manual_seed(11)
    before = torch.get_rng_state()
    assert trial.try_paths(model) == trial.Paths(packed=True, plain_head=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.config._attn_implementation == "sdpa" and not model.training


def test_heads() -> None:
    """A head that is more than a matrix is seen, whatever its setting is called."""
    for model_type, special in (
        ("granite", {"logits_scaling": 3.0}),
        ("recurrent_gemma", {"lru_width": 64, "logits_soft_cap": 5.0}),
        ("xlstm", {"num_heads": 4, "num_blocks": 2, "chunk_size": 8, "output_logit_soft_cap": 5.0}),
    ):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SMALL | special))
        assert not trial.try_paths(model).plain_head, model_type


def test_what_the_tiny_model_lacks_does_not_pack() -> None:
    model = LlamaForCausalLM(AutoConfig.for_model("llama", **SMALL))
    assert trial.try_paths(model).packed
    model.model.layers[1].mixer = torch.nn.Conv1d(64, 64, 3)
    assert not trial.try_paths(model).packed


def test_kinds_of_layers_anywhere_in_the_list_are_tried() -> None:
    kinds = ["full_attention"] * 9

    def packs(model_type: str, middle: str) -> bool:
        special = {"num_hidden_layers": 9, "layer_types": [*kinds[:6], middle, *kinds[7:]], "head_dim": 16}
        return trial.try_paths(
            AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SMALL | special))
        ).packed

    assert packs("lfm2", "full_attention") and not packs("lfm2", "conv")
    assert packs("gemma3_text", "full_attention") and packs("gemma3_text", "sliding_attention")


def test_a_model_that_cannot_be_tried_is_still_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LARGEST", 0)
    model = load_model(save(tmp_path, "qwen3", {"head_dim": 16}), packed=True)
    assert not can_pack(model)
    plain, rows = plain_model(tmp_path), documents()
    assert ours(model, rows) == pytest.approx(theirs(plain, rows), rel=1e-5)


def test_a_wide_model_is_tried_narrow() -> None:
    """An 8-billion architecture, built without memory: its trial is small."""
    config = AutoConfig.for_model(
        "llama", vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, eos_token_id=[128_001, 128_008],
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    tiny = trial._tiny_model(model)
    assert sum(weight.numel() for weight in tiny.parameters()) < 3_000_000
    assert trial.try_paths(model) == trial.Paths(packed=True, plain_head=True)
