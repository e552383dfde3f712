"""Other people's models, by architecture: they load, learn, and leave a directory with their own logits in it.

Random weights in stock configurations: what holds is that the classes, their safetensors and a tokenizer without a chat
template go through training, and not how good a published checkpoint is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config

from ownchat.config import load_config
from ownchat.model.block import make_block
from ownchat.model.load import can_pack, load_model, load_tokenizer
from ownchat.model.loss import negative_log_likelihood
from ownchat.tokenizer import stage as tokenizer
from ownchat.tokenizer.render import PLAIN_TEMPLATE
from ownchat.tokenizer.store import TokenStore
from ownchat.tokenizer.tokens import run_tokens
from ownchat.train import stage

SETS = (
    "train.batch_tokens=600",
    "train.block_tokens=600",
    "train.epochs=2",
    "train.threads=1",
    "train.learning_rate=1e-2",
)
GROUPED: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
NO_DROPOUT = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
STOCK: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),  # dropout as published
    "gpt-neo": (
        "gpt_neo",
        {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
         "window_size": 16, "max_position_embeddings": 256},
    ),
    "opt": (
        "opt",
        {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32,
         "max_position_embeddings": 256},
    ),
    "pythia": (
        "gpt_neox",
        {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 256, **NO_DROPOUT},
    ),
    "llama": ("llama", GROUPED),
    "qwen2": ("qwen2", GROUPED),
    "qwen3": ("qwen3", {**GROUPED, "head_dim": 8}),
    "mistral": ("mistral", {**GROUPED, "sliding_window": 24}),
    "gemma": ("gemma", {**GROUPED, "head_dim": 8}),
}  # fmt: skip


@pytest.fixture(scope="module")
def base_tokenizer(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's, without its chat template, as base models come."""
    directory = tmp_path_factory.mktemp("tokenizer")
    plain = AutoTokenizer.from_pretrained(tiny_model)
    plain.chat_template = None
    plain.save_pretrained(directory)
    return directory


def base_model(name: str, base_tokenizer: Path, directory: Path) -> Path:
    kind, special = STOCK[name]
    mine = AutoTokenizer.from_pretrained(base_tokenizer)
    ends = {"bos_token_id": None, "eos_token_id": mine.eos_token_id, "pad_token_id": mine.pad_token_id}
    config = AutoConfig.for_model(kind, vocab_size=len(mine), initializer_range=0.1, **ends, **special)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    mine.save_pretrained(directory)
    return directory


def likelihood(model: Any, ids: np.ndarray) -> float:
    """Plain transformers, nothing of ours."""
    tokens = torch.from_numpy(ids.astype(np.int64))
    with torch.no_grad():
        logits = model.eval()(input_ids=tokens[None], use_cache=False).logits[0, :-1].float()
    return float(cross_entropy(logits, tokens[1:], reduction="sum"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("name", STOCK)
def test_fine_tunes_like_any_other(
    name: str,
    method: str,
    inputs: dict[str, Path],
    base_tokenizer: Path,
    tmp_path: Path,
    speed_of_matrix_products: None,
) -> None:
    base = base_model(name, base_tokenizer, tmp_path / "base")
    config, _ = load_config(sets=[*SETS, f"train.method={method}"])
    tokenizer.run_tokenizer(config, {"base": base}, tmp_path / "3-tokenizer")
    clean = inputs["tokens"].parent / "2-clean"
    run_tokens(config, {"clean": clean, "tokenizer": tmp_path / "3-tokenizer"}, tmp_path / "4-tokens")
    mine = {"tokens": tmp_path / "4-tokens", "tokenizer": tmp_path / "3-tokenizer", "base": base}
    facts = stage.run(config, mine, tmp_path / "5-train").details
    assert facts["steps"] >= 3 and facts["best_loss"] < facts["base_loss"]

    result = tmp_path / "5-train" / "model"
    assert AutoTokenizer.from_pretrained(result).chat_template == PLAIN_TEMPLATE
    assert list(result.glob("*.safetensors")) and not list(result.glob("*.bin"))
    ids = TokenStore(mine["tokens"] / "valid")[0][0]
    opened = AutoModelForCausalLM.from_pretrained(result)
    after, before = (likelihood(AutoModelForCausalLM.from_pretrained(path), ids) for path in (result, base))
    assert abs(after - before) > 0.5, "something was learned"
    packed = load_model(result, packed=True)
    block = make_block([(ids, np.ones(len(ids), np.uint8))], packed=can_pack(packed))
    assert float(negative_log_likelihood(packed, block).detach()) == pytest.approx(likelihood(opened, ids), rel=1e-5)


@pytest.mark.slow
def test_stock_gpt2_with_its_real_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2's configuration with 124 million random weights, and GPT-2's own tokens: our logits are transformers'."""
    from ownchat.errors import UserError
    from ownchat.tokenizer.gpt2 import gpt2_directory

    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    try:
        files = gpt2_directory()
    except UserError as error:
        pytest.skip(f"the tokenizer cannot be had: {error.what}")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(GPT2Config()).save_pretrained(tmp_path / "gpt2")
    mine = load_tokenizer(files)
    mine.save_pretrained(tmp_path / "gpt2")
    assert len(mine) == 50257 and mine.encode("Hello world") == [15496, 995]

    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "gpt2").eval()
    assert sum(weight.numel() for weight in plain.parameters()) == 124_439_808
    ids = np.array(mine.encode("The parcel has not arrived yet. I am sorry to hear that; let me look at the number."))
    with torch.no_grad():
        ours, theirs = (
            model(input_ids=torch.from_numpy(ids)[None]).logits for model in (load_model(tmp_path / "gpt2"), plain)
        )
    assert torch.equal(ours, theirs)
    packed = load_model(tmp_path / "gpt2", packed=True)
    block = make_block([(ids, np.ones(len(ids), np.uint8))], packed=can_pack(packed))
    assert float(negative_log_likelihood(packed, block).detach()) == pytest.approx(likelihood(plain, ids), rel=1e-5)
