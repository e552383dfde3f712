"""Packed equals one document at a time: loss and every gradient, for each architecture that packs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from ownchat.model import attention
from ownchat.model.block import Document, make_block
from ownchat.model.load import can_pack, load_model
from ownchat.model.loss import log_probabilities, negative_log_likelihood
from ownchat.model.score import score_documents

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 600, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SMALL),
    "qwen3": Qwen3Config(**SMALL),
    "mistral, window 7": MistralConfig(**SMALL, sliding_window=7),
    "gpt2": GPT2Config(
        vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=600, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    ),
}  # fmt: skip


def documents(lengths: list[int], *, shared: int = 0) -> list[Document]:
    generator = np.random.default_rng(1)
    head = generator.integers(1, 97, shared)
    rows = []
    for length in lengths:
        ids = np.concatenate([head, generator.integers(1, 97, length)])
        weights = (generator.random(len(ids)) < 0.6).astype(np.uint8)
        rows.append((ids, weights))
    return rows


def losses(model: Any, blocks: list[list[Document]], *, packed: bool) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    total = 0.0
    for block in blocks:
        loss = negative_log_likelihood(model, make_block(block, packed=packed))
        loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("lengths", "shared"),
    [([5, 17, 17, 30], 0), ([3, 9, 21], 12), ([300, 290], 10), ([1, 1, 2], 20), ([40], 0), ([33, 33, 33], 0)],
    ids=["unlike", "shared prefix", "long", "short rests", "alone", "full rows"],
)
def test_packed_equals_one_at_a_time(name: str, lengths: list[int], shared: int) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention.NAME).float()
    rows = documents(lengths, shared=shared)
    together, gradients = losses(model, [rows], packed=True)
    model.set_attn_implementation("sdpa")
    apart, wanted = losses(model, [[row] for row in rows], packed=False)
    assert together == pytest.approx(apart, rel=1e-5)
    assert gradients.keys() == wanted.keys()
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(gradients[parameter], gradient, rtol=2e-4, atol=2e-5, msg=parameter)


def test_documents_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"], attn_implementation=attention.NAME).float().eval()
    first, second = documents([20, 25])
    other = (np.roll(first[0], 3), first[1])
    with torch.no_grad():
        with_first = log_probabilities(model, make_block([first, second]))[-int(second[1][1:].sum()) :]
        with_other = log_probabilities(model, make_block([other, second]))[-int(second[1][1:].sum()) :]
    assert torch.equal(with_first, with_other)


def test_a_shared_prefix_is_held_once() -> None:
    rows = documents([4, 6, 8], shared=30)
    block = make_block(rows)
    assert block.num_tokens == 30 * 3 + 18, "counted in each document"
    assert block.ids.shape == (1, 30 + 18), "computed once"


def test_loss_is_the_plain_one(tiny_model: Path) -> None:
    """Against transformers' own logits and torch's cross-entropy, document by document."""
    model = load_model(tiny_model, packed=True)
    assert can_pack(model)
    rows = documents([12, 33, 7], shared=9)
    scores = score_documents(model, rows)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    for (ids, weights), got in zip(rows, scores, strict=True):
        with torch.no_grad():
            logits = plain(torch.tensor(ids)[None]).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        np.testing.assert_allclose(got, -nll.numpy()[weights[1:] == 1], atol=1e-4)


def test_architecture_with_soft_caps_takes_the_padded_path(tmp_path: Path) -> None:
    config = Gemma2Config(**{**SMALL, "query_pre_attn_scalar": 8})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load_model(tmp_path, packed=True)
    assert not can_pack(model)
    rows = documents([12, 33, 7])
    alone = [score_documents(model, [row])[0] for row in rows]
    for together, one in zip(score_documents(model, rows), alone, strict=True):
        np.testing.assert_allclose(together, one, atol=1e-4)


def test_the_softmax_of_long_rows_is_kept_or_made_again_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 300, heads, 16, generator=generator).requires_grad_() for heads in (4, 2, 2))
    above = torch.randn(2, 300, 4, 16, generator=generator)

    def gradients() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(attention._attend(q, k, v, 0.25, None, 0.0), (q, k, v), above)

    assert attention._is_stored(q, 300) and attention._is_stored(q[:, :256], 300)
    kept = gradients()
    monkeypatch.setattr(attention, "STORED_BYTES", 2 * 4 * 300 * 214 * 4 - 1)
    assert not attention._is_stored(q, 300)
    assert all(torch.equal(one, other) for one, other in zip(kept, gradients(), strict=True))
    wide = torch.empty(2, 300, 4, 64)
    monkeypatch.undo()
    assert not attention._is_stored(wide, 300), "a deep model would keep much"
