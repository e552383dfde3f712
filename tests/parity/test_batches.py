"""A global batch gives the same loss and the same step however it is cut into blocks; and equals plain AdamW."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from ownchat.model.block import Document
from ownchat.model.load import load_model
from ownchat.tokenizer.store import Item
from ownchat.train.loop import train_step
from ownchat.train.objectives import Likelihood
from ownchat.train.optim import Optimizer
from ownchat.train.schedule import learning_rate

GENERATOR = np.random.default_rng(0)
BATCH: list[Document] = [
    (GENERATOR.integers(3, 300, length), (GENERATOR.random(length) < share).astype(np.uint8))
    for length, share in ((12, 0.9), (40, 0.1), (33, 0.5), (25, 0.0), (60, 0.7))
]


def stepped(directory: Path, blocks: list[list[Document]], *, packed: bool = True, dtype: str = "float32") -> tuple:
    model = load_model(directory, packed=packed, dtype=dtype).requires_grad_(True)
    optimizer = Optimizer(model, weight_decay=0.1)
    items = [[Item(number, (document,)) for number, document in enumerate(block)] for block in blocks]
    results = [train_step(model, Likelihood(), optimizer, items, 1e-2, 1.0)[:3] for _ in range(2)]
    return results, optimizer.state()


@pytest.mark.parametrize("cut", [[[0, 1, 2, 3, 4]], [[0], [1], [2], [3], [4]], [[3], [0, 4], [2, 1]]])
@pytest.mark.parametrize("packed", [True, False])
def test_blocks_do_not_matter(tiny_model: Path, cut: list[list[int]], packed: bool) -> None:
    wanted, state = stepped(tiny_model, [BATCH])
    got, other = stepped(tiny_model, [[BATCH[n] for n in block] for block in cut], packed=packed)
    for (loss, norm, tokens), (loss2, norm2, tokens2) in zip(wanted, got, strict=True):
        assert loss2 == pytest.approx(loss, rel=1e-5) and norm2 == pytest.approx(norm, rel=1e-4)
        assert tokens == tokens2 == sum(len(ids) for ids, _ in BATCH)
    for name, tensor in state.items():
        if name.startswith("master."):  # Adam's first steps are about the sign of a gradient: rounding shows
            assert float((other[name] - tensor).abs().max()) < 2e-3, name


def test_step_equals_plain_torch(tiny_model: Path) -> None:
    """transformers' logits, torch's cross-entropy, torch's AdamW: nothing of ours."""
    ours, state = stepped(tiny_model, [BATCH])
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    adam = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=1e-2
    )
    for step in range(2):
        total, count = torch.zeros(()), 0
        for ids, weights in BATCH:
            logits = model(torch.tensor(ids)[None]).logits[0, :-1]
            nll = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
            total = total + nll[torch.tensor(weights[1:]) == 1].sum()
            count += int(weights[1:].sum())
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        assert ours[step][0] == pytest.approx(float(total.detach()) / count, rel=1e-5)
    for name, weight in model.named_parameters():
        if f"master.{name}" in state:
            assert float((state[f"master.{name}"] - weight.detach()).abs().max()) < 2e-3, name


def test_bfloat16_has_float32_masters(tiny_model: Path) -> None:
    exact, _ = stepped(tiny_model, [BATCH])
    rough, state = stepped(tiny_model, [[BATCH[0], BATCH[1]], BATCH[2:]], dtype="bfloat16")
    assert rough[1][0] == pytest.approx(exact[1][0], rel=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in state.values())


def test_learning_rate() -> None:
    rates = [learning_rate(n, peak=1.0, total=100, warmup=10, schedule="cosine") for n in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == pytest.approx(1.0)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert learning_rate(99, peak=1.0, total=100, warmup=0, schedule="constant") == 1.0
