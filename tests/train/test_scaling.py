"""The arithmetic of docs/scaling.md, by hand on round numbers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
from transformers import LlamaConfig

from ownchat.model import account as accounts

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("scaling")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def tiny() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip


def test_what_full_training_moves(scaling: ModuleType, tiny: LlamaConfig) -> None:
    account = accounts.count(tiny, method="full", dtype="bfloat16")
    moved = scaling.collectives(account, base="sharded", passes=2)
    layers, rest = account.matrices, account.parameters - account.matrices
    assert len(moved.gathers) == 2 * (2 * 3 + 1) and len(moved.sums) == 2 * (3 + 1)
    assert sum(moved.gathers) == pytest.approx(2 * (2 * 2 * layers + 2 * rest)), "bfloat16, layers twice in a pass"
    assert sum(moved.sums) == pytest.approx(2 * 4 * account.parameters), "float32, in every pass"


def test_what_an_adapter_moves(scaling: ModuleType, tiny: LlamaConfig) -> None:
    account = accounts.count(tiny, method="lora", dtype="bfloat16", rank=4)
    whole = scaling.collectives(account, base="whole", passes=5)
    assert whole.received == 8 * account.adapter, "once a step, however many passes"
    spread = scaling.collectives(account, base="sharded", passes=5)
    assert sum(spread.sums) == pytest.approx(4 * account.adapter)
    assert sum(spread.gathers) > 5 * 2 * 2 * account.matrices


def test_a_ring(scaling: ModuleType) -> None:
    links = scaling.Links(inside=100e9, outside=1e9, inside_hop=1e-6, outside_hop=5e-6, base=1e-5)
    assert scaling.seconds_of(1e9, 1, links) == 0
    assert scaling.seconds_of(1e9, 8, links) == pytest.approx(1e-5 + 7e-6 + 1e9 * 7 / 8 / 100e9)
    # two machines: half of it comes from outside, through eight ports
    assert scaling.seconds_of(1e9, 16, links) == pytest.approx(1e-5 + 14e-6 + 2 * 5e-6 + 5e8 / 8e9)


def test_a_step_computes_and_moves_at_once(scaling: ModuleType, tiny: LlamaConfig) -> None:
    account = accounts.count(tiny, method="full", dtype="bfloat16")
    alone, eight, many = (scaling.step("tiny", account, gpus, tokens=4096) for gpus in (1, 8, 1024))
    assert alone.efficiency == 1 and alone.communicating == 0
    assert eight.computing <= eight.seconds <= eight.computing + eight.communicating
    assert many.efficiency < eight.efficiency <= 1, "hops of a ring of 1,024 outweigh so small a model"
    assert eight.gpu_hours_per_billion == pytest.approx(8 * 1e9 / eight.tokens_per_second / 3600)
    priced = scaling.step("tiny", account, 8, tokens=4096, price=2.0)
    assert priced.money_per_billion == pytest.approx(2 * priced.gpu_hours_per_billion)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 1_048_576])
def test_the_page_shows_what_it_prints(scaling: ModuleType, batch: int | None) -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for line in scaling.lines(scaling.table("h100", batch=batch)):
        assert line in page
