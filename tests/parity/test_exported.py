"""The directory that training leaves, opened by transformers and PEFT alone, is the model that was trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from ownchat.config import load_config
from ownchat.tokenizer.store import TokenStore
from ownchat.train import checkpoint, decisions
from ownchat.train.stage import run

SETS = ("train.batch_tokens=400", "train.block_tokens=400", "train.epochs=2", "train.threads=1")
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "bos_token_id": 2, "eos_token_id": 2}


@pytest.fixture(scope="module", autouse=True)
def speed_of_matrix_products() -> Iterator[None]:
    """Half of such a short training would be spent on measuring it; the settings here leave it nothing to decide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decisions, "matmul_tflops", lambda *_, **__: 0.1)
        yield


def gpt2(inputs: dict[str, Path], directory: Path) -> dict[str, Path]:
    tokenizer = AutoTokenizer.from_pretrained(inputs["base"])
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(GPT2Config(vocab_size=len(tokenizer), **GPT2)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return inputs | {"base": directory}


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_adapter(architecture: str, variant: str, dtype: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    mine = inputs if architecture == "llama" else gpt2(inputs, tmp_path / "base")
    sets = (*SETS, f"model.lora_variant={variant}", f"model.dtype={dtype}")
    facts = run(load_config(sets=sets)[0], mine, tmp_path / "5-train").details
    said = json.loads((tmp_path / "5-train" / "adapter" / "adapter_config.json").read_text())
    assert (said["peft_type"], said["use_rslora"], said["use_dora"]) == ("LORA", variant == "rslora", variant == "dora")
    ids = torch.from_numpy(TokenStore(mine["tokens"] / "valid")[0][0])[None]
    base = AutoModelForCausalLM.from_pretrained(mine["base"])
    untuned = logits(base, ids)
    worn = logits(PeftModel.from_pretrained(base, tmp_path / "5-train" / "adapter"), ids)
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "5-train" / "model"), ids)
    assert float((merged - worn).abs().max()) < 1e-4 and facts["export_difference"] < 1e-4
    assert float((merged - untuned).abs().max()) > 0.05, "the adapter does something"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_weights(dtype: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    """The result is the float32 masters of the best step, bit for bit, also where training computed in bfloat16."""
    sets = (*SETS, "train.method=full", "train.learning_rate=1e-3", f"model.dtype={dtype}")
    facts = run(load_config(sets=sets)[0], inputs, tmp_path / "5-train").details
    best = checkpoint.path_of(tmp_path / "5-train" / "sft" / "checkpoints", facts["best_step"])
    saved = checkpoint.Saved(best)
    masters = {name: saved.read(name) for name in saved}
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "5-train" / "model")
    trained = dict(opened.named_parameters())
    assert {f"master.{name}" for name in trained} == {name for name in masters if name.startswith("master.")}
    assert all(torch.equal(weight, masters[f"master.{name}"]) for name, weight in trained.items())
    stored = load_file(tmp_path / "5-train" / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
