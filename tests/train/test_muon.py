"""Muon beside torch's own, and what it is let move."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3MoeConfig

from ownchat.train.checkpoint import Saved, State, save
from ownchat.train.muon import Muon, hidden_matrices, newton_schulz, orthogonal
from ownchat.train.optim import Optimizer

SHAPES = [(24, 24), (24, 64), (64, 24), (24, 64), (3, 16, 24)]


def masters_and_gradients(steps: int) -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
    torch.manual_seed(0)
    return [torch.randn(shape) for shape in SHAPES], [[torch.randn(shape) for shape in SHAPES] for _ in range(steps)]


@pytest.mark.parametrize(("dtype", "momentum"), [(torch.float32, 0.95), (torch.float32, 0.8), (torch.bfloat16, 0.95)])
def test_it_moves_as_torchs_own(dtype: torch.dtype, momentum: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch makes its products in bfloat16; its code in float32 is what float32 is compared with."""
    start, gradients = masters_and_gradients(steps=4)
    ours = {str(number): torch.nn.Parameter(matrix.clone()) for number, matrix in enumerate(start)}
    muon = Muon(ours, dtype=dtype, momentum=momentum)
    for step in gradients:
        for master, gradient in zip(ours.values(), step, strict=True):
            master.grad = gradient.clone()
        muon.step(0.02, 0.1)
    if dtype == torch.float32:
        monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    for number, master in enumerate(ours.values()):
        whole = start[number].reshape(-1, *SHAPES[number][-2:])
        for place, matrix in enumerate(whole):  # experts: each matrix of its own
            theirs = torch.nn.Parameter(matrix.clone())
            given = {"lr": 0.02, "weight_decay": 0.1, "momentum": momentum, "adjust_lr_fn": "match_rms_adamw"}
            optimizer = torch.optim.Muon([theirs], **given)
            for step in gradients:
                theirs.grad = step[number].reshape(whole.shape)[place].clone()
                optimizer.step()
            mine = master.detach().reshape(whole.shape)[place]
            limit = 1e-6 if dtype == torch.float32 else 2e-3
            torch.testing.assert_close(mine, theirs.detach(), rtol=0, atol=limit)


def test_the_result_is_nearly_orthogonal_and_of_known_size() -> None:
    matrix = torch.randn(40, 100, generator=torch.Generator().manual_seed(0))
    made = newton_schulz(matrix[None])[0]
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.6 and values.max() < 1.3
    assert float(made.square().mean().sqrt() * 0.2 * 100**0.5) == pytest.approx(0.2, rel=0.2)


def test_the_size_of_a_stack_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices, _ = masters_and_gradients(steps=0)
    together = dict(orthogonal(matrices, torch.float32))
    monkeypatch.setattr("ownchat.train.muon.STACK_BYTES", 1)
    alone = dict(orthogonal(matrices, torch.float32))
    assert together.keys() == alone.keys() == set(range(len(SHAPES)))
    for number, matrix in together.items():
        assert matrix.shape == SHAPES[number]
        torch.testing.assert_close(alone[number], matrix, rtol=0, atol=1e-5)


def tiny(name: str) -> torch.nn.Module:
    shape = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    match name:
        case "llama":
            config = LlamaConfig(**shape, intermediate_size=24, tie_word_embeddings=False)
        case "experts":
            config = Qwen3MoeConfig(
                **shape, intermediate_size=24, moe_intermediate_size=12, num_experts=4, num_experts_per_tok=2,
                num_key_value_heads=2, head_dim=8,
            )  # fmt: skip
        case _:
            config = GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def test_hidden_matrices_are_moved_and_nothing_else() -> None:
    assert {name.split(".")[-2] for name in hidden_matrices(tiny("llama"))} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert {name.split(".")[-2] for name in hidden_matrices(tiny("gpt2"))} == {"c_attn", "c_proj", "c_fc"}
    experts = tiny("experts")
    named = dict(experts.named_parameters())
    assert any(named[name].ndim == 3 for name in hidden_matrices(experts))


@pytest.mark.parametrize("name", ["llama", "gpt2", "experts"])
def test_the_state_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    def step(model: torch.nn.Module, optimizer: Optimizer, seed: int) -> None:
        ids = torch.randint(0, 60, (2, 12), generator=torch.Generator().manual_seed(seed))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.clip(1.0)
        optimizer.step(0.01)

    def made(model: torch.nn.Module) -> Optimizer:
        return Optimizer(model.eval(), weight_decay=0.1, kind="muon", betas=(0.9, 0.95))

    one = tiny(name)
    optimizer = made(one)
    for seed in range(2):
        step(one, optimizer, seed)
    path = save(tmp_path, State(step=2), optimizer.state(), lambda path: None)
    assert sum(tensor.startswith("momentum.") for tensor in optimizer.state()) == len(hidden_matrices(one))
    other = tiny(name)
    resumed = made(other)
    resumed.load(Saved(path))
    for model, its in ((one, optimizer), (other, resumed)):
        step(model, its, 2)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
