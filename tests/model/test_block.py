"""How documents become a block: what is shared, on which device, in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from ownchat.model import attention
from ownchat.model.account import size_of
from ownchat.model.attention import to_device
from ownchat.model.block import Document, blocks_for, make_block, shares_prefix, shares_prefix_on
from ownchat.model.loss import log_probabilities

GENERATOR = np.random.default_rng(0)
HEAD = GENERATOR.integers(1, 90, 20)
ROWS: list[Document] = [
    (np.concatenate([HEAD, GENERATOR.integers(1, 90, length)]), np.ones(20 + length, np.uint8)) for length in (4, 9, 6)
]


def llama(**changes: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, **changes,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME)


def gpt2(dropout: float) -> Any:
    config = GPT2Config(
        vocab_size=97, n_embd=32, n_layer=1, n_head=4, resid_pdrop=dropout, embd_pdrop=0.0, attn_pdrop=0.0
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME)


def test_without_sharing_every_document_is_whole() -> None:
    whole, shared = make_block(ROWS, share_prefix=False), make_block(ROWS)
    assert whole.layout is not None and shared.layout is not None
    assert whole.layout.prefix == 0 and shared.layout.prefix == 20
    assert whole.ids.tolist() == [[*ROWS[0][0], *ROWS[1][0], *ROWS[2][0]]] and whole.ids.shape[1] == 79
    assert whole.layout.cumulative.tolist() == [0, 24, 53, 79]
    assert whole.num_tokens == shared.num_tokens == 79 and torch.equal(whole.targets, shared.targets)
    assert size_of(ROWS, share_prefix=False).tokens == 79 and size_of(ROWS).tokens == 39


def test_sharing_does_not_change_the_scores() -> None:
    model = llama().eval()
    with torch.no_grad():
        whole, shared = (log_probabilities(model, make_block(ROWS, share_prefix=share)) for share in (False, True))
    torch.testing.assert_close(whole, shared, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "training", "wanted"),
    [
        (llama, True, True),
        (lambda: llama(attention_dropout=0.1), True, False),
        (lambda: llama(attention_dropout=0.1), False, True),
        (lambda: gpt2(0.0), True, True),
        (lambda: gpt2(0.1), True, False),
        (lambda: gpt2(0.1), False, True),
    ],
)
def test_a_prefix_is_not_shared_where_dropout_is_active(make: Callable[[], Any], training: bool, wanted: bool) -> None:
    """One draw for the prefix would stand for all documents."""
    model = make().train(training)
    assert shares_prefix(model) is wanted
    (block,) = blocks_for(model, [ROWS])
    assert block.layout is not None and block.layout.prefix == (20 if wanted else 0)


def test_a_prefix_is_not_shared_on_a_gpu() -> None:
    assert shares_prefix_on("cpu") and not shares_prefix_on("cuda")


def test_blocks_are_made_when_they_are_asked_for() -> None:
    """What is laid out early stands in memory early."""
    asked: list[int] = []

    class Batch(list):
        def __iter__(self) -> Any:
            for number, documents in enumerate(super().__iter__()):
                asked.append(number)
                yield documents

    blocks = blocks_for(llama(), Batch([ROWS[:1], ROWS[1:], ROWS]))
    assert asked == []
    assert next(blocks).num_tokens == 24 and asked == [0]
    assert next(blocks).num_tokens == 55 and asked == [0, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_copies_are_whole() -> None:
    numbers = torch.arange(1_000_003)
    assert torch.equal(to_device(numbers, "cuda").cpu(), numbers)
    here, there = make_block(ROWS, share_prefix=False), make_block(ROWS, device="cuda", share_prefix=False)
    assert torch.equal(here.ids, there.ids.cpu()) and torch.equal(here.index, there.index.cpu())
