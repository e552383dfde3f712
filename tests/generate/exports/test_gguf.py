"""GGUF files, run in llama.cpp: every architecture and type that is written answers as transformers does."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ownchat.errors import ModelError, UserError
from ownchat.generate.exports import gguf_file, parity
from ownchat.generate.exports.llamacpp import LlamaCpp
from ownchat.generate.exports.parity import Tolerance
from ownchat.generate.exports.vocabulary import read_vocabulary
from ownchat.generate.exports.weights import Weights, pairs
from ownchat.model.load import is_here, load_model, load_tokenizer, resolve_base
from ownchat.pipeline.export import TEXTS
from ownchat.pipeline.export_checks import TOLERANCES

EXACT = Tolerance(largest=0.05, mean=0.01)
SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.1,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**SIZES, "tie_word_embeddings": False}),
    "llama, biases and wide heads": ("llama", {**SIZES, "attention_bias": True, "mlp_bias": True, "head_dim": 32}),
    "llama 3": (
        "llama",
        {
            **SIZES, "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
            },
        },
    ),
    "linear": ("llama", {**SIZES, "rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}}),
    "mistral": ("mistral", {**SIZES, "sliding_window": None}),
    "qwen2": ("qwen2", {**SIZES, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 16, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.1}),
}  # fmt: skip
CONVERSATIONS = [
    [{"role": "user", "content": "How do I return an order?"}],
    [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "東京 までの 送料は 120 円ですか? 🙂"}],
    [
        {"role": "user", "content": "The pump makes\n\na noise."},
        {"role": "assistant", "content": "Close the valve."},
        {"role": "user", "content": "It's closed,  and then?"},
    ],
]


@pytest.fixture
def make_model(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """``make_model(type, settings)``: a random model with the tiny tokenizer, saved; nothing in it is zero or one."""

    def make(type: str, settings: dict[str, Any]) -> Path:
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        ids = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
        config = AutoConfig.for_model(type, vocab_size=len(tokenizer), **ids, **settings)
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 1:  # norms and biases
                    weight.add_(torch.randn_like(weight) * (0.05 if "norm" in name else 0.2))
        directory = tmp_path / type
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        AutoTokenizer.from_pretrained(directory).save_pretrained(directory)  # transformers has its own idea of Qwen's
        return directory

    return make


def pieces(directory: Path) -> list[bytes]:
    return read_vocabulary(directory, Weights(directory).rows).pieces()


def compare(directory: Path, file: Path, tolerance: Tolerance) -> parity.Parity:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    texts = [normalize("NFC", text) if parity.composes(tokenizer) else text for text in TEXTS]
    with LlamaCpp(file, pieces(directory), context=512, threads=1) as engine:
        return parity.compare(engine, model, tokenizer, CONVERSATIONS, tolerance, texts=texts)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_is_the_same_model_in_llama_cpp(name: str, make_model: Callable, tmp_path: Path) -> None:
    directory = make_model(*ARCHITECTURES[name])
    file = gguf_file.write_gguf(directory, tmp_path / "model.gguf", "f16")
    found = compare(directory, file, EXACT)
    assert found.prompts == 3 and found.tokens > 50
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("kind", ["q8_0", "q4_1"])
def test_types_of_few_bits(kind: gguf_file.GgufType, tiny_model: Path, tmp_path: Path) -> None:
    whole = gguf_file.write_gguf(tiny_model, tmp_path / "f16.gguf", "f16")
    file = gguf_file.write_gguf(tiny_model, tmp_path / f"{kind}.gguf", kind)
    assert file.stat().st_size < whole.stat().st_size
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert types["blk.0.ffn_up.weight"] == kind.upper()
    assert types["token_embd.weight"] == "Q8_0" and types["output_norm.weight"] == "F32"
    found = compare(tiny_model, file, TOLERANCES[kind])
    assert found.largest > 0


def test_rows_without_whole_blocks_stay_f16(make_model: Callable, tmp_path: Path) -> None:
    directory = make_model("llama", SIZES | {"intermediate_size": 80})
    file = gguf_file.write_gguf(directory, tmp_path / "model.gguf", "q8_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert types["blk.0.ffn_down.weight"] == "F16" and types["blk.0.ffn_up.weight"] == "Q8_0"
    compare(directory, file, TOLERANCES["q8_0"])


@pytest.mark.parametrize("damage", ["weight", "no permutation", "position"])
def test_another_model_is_refused(
    damage: str, make_model: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate is not a formality: what a wrong export would look like does not pass."""
    directory = make_model("llama", SIZES)
    if damage == "no permutation":
        monkeypatch.setattr("ownchat.generate.exports.weights.pairs", lambda values, heads: values)
    file = gguf_file.write_gguf(directory, tmp_path / "model.gguf", "f16")
    if damage == "weight":
        model = AutoModelForCausalLM.from_pretrained(directory)
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight *= 1.2
        model.save_pretrained(directory)
    if damage == "position":
        stored = json.loads((directory / "config.json").read_text())
        stored["rope_parameters"]["rope_theta"] *= 2
        (directory / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ModelError, match=r"likelier by|log-probabilities differ"):
        compare(directory, file, EXACT)


def test_other_tokens_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(tiny_model, tmp_path / "model")
    file = gguf_file.write_gguf(directory, tmp_path / "model.gguf", "f16")
    stored = json.loads((directory / "tokenizer.json").read_text())
    stored["model"]["merges"] = stored["model"]["merges"][5:]
    (directory / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(ModelError, match="is split into other tokens"):
        compare(directory, file, EXACT)


def test_another_prompt_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(tiny_model, tmp_path / "model")
    file = gguf_file.write_gguf(directory, tmp_path / "model.gguf", "f16")
    template = directory / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    with pytest.raises(ModelError, match="rendered differently from character"):
        compare(directory, file, EXACT)


def test_control_tokens_in_the_text_are_compared_by_tokens_only(tiny_model: Path, tmp_path: Path) -> None:
    file = gguf_file.write_gguf(tiny_model, tmp_path / "model.gguf", "f16")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    asked = [[{"role": "user", "content": "What is <|im_end|>?"}]]
    with LlamaCpp(file, pieces(tiny_model), context=512, threads=1) as engine:
        assert parity.compare(engine, model, tokenizer, asked, EXACT).prompts == 1


def test_what_is_not_written_is_said(make_model: Callable, tmp_path: Path) -> None:
    directory = make_model("gpt_neox", {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
                                        "intermediate_size": 96})  # fmt: skip
    with pytest.raises(ModelError, match=r"gpt_neox.*\n.*Qwen3 and GPT-2"):
        gguf_file.write_gguf(directory, tmp_path / "model.gguf", "f16")
    windowed = make_model("mistral", SIZES | {"sliding_window": 64})
    with pytest.raises(ModelError, match="sliding window"):
        gguf_file.write_gguf(windowed, tmp_path / "model.gguf", "f16")
    assert not (tmp_path / "model.gguf").exists()


def test_q4_k_m_needs_llama_quantize(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"llama-quantize.*\n.*q4_1"):
        gguf_file.write_gguf(tiny_model, tmp_path / "model.gguf", "q4_k_m")
    program = tmp_path / gguf_file.QUANTIZE  # where there is one: it gets both files and the type
    program.write_text('#!/bin/sh\n[ "$3" = Q4_K_M ] && /bin/cp "$1" "$2"\n')
    program.chmod(0o755)
    file = gguf_file.write_gguf(tiny_model, tmp_path / "model.gguf", "q4_k_m")
    assert {path.name for path in tmp_path.iterdir()} == {"model.gguf", gguf_file.QUANTIZE}
    compare(tiny_model, file, EXACT)
    program.write_text("#!/bin/sh\necho too small >&2\nexit 1\n")
    with pytest.raises(ModelError, match="too small"):
        gguf_file.write_gguf(tiny_model, tmp_path / "other.gguf", "q4_k_m")
    assert not (tmp_path / "other.gguf").exists()


@pytest.mark.skipif(shutil.which(gguf_file.QUANTIZE) is None, reason="llama.cpp's llama-quantize is not on the PATH")
@pytest.mark.parametrize("width", [64, 256])  # rows of 64 are no whole blocks of 256: other types there
def test_q4_k_m_as_the_real_program_makes_it(make_model: Callable, tmp_path: Path, width: int) -> None:
    directory = make_model("llama", SIZES | {"hidden_size": width, "intermediate_size": 256, "initializer_range": 0.05})
    file = gguf_file.write_gguf(directory, tmp_path / "model.gguf", "q4_k_m")
    compare(directory, file, TOLERANCES["q4_k_m"])


def test_large_values_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e5
    directory = shutil.copytree(tiny_model, tmp_path / "model")
    model.save_pretrained(directory)
    with pytest.raises(ModelError, match="float16 cannot hold"):
        gguf_file.write_gguf(directory, tmp_path / "model.gguf", "f16")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_pairs_is_a_permutation_of_each_head() -> None:
    rows = np.arange(12)[:, None] * np.ones(3)
    assert pairs(rows, 2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_rows_beyond_the_tokenizer_are_named(tiny_model: Path) -> None:
    known = Weights(tiny_model).rows
    found = read_vocabulary(tiny_model, known + 3)
    assert found.tokens[known:] == tuple(f"[PAD{id}]" for id in range(known, known + 3))
    with pytest.raises(ModelError, match="tokens and the model"):
        read_vocabulary(tiny_model, known - 1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}}, "ByteLevel"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}}, "splits by nothing"),
        ({"pre_tokenizer": None}, "bytes"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"model": {"type": "WordLevel", "vocab": {}, "unk_token": "?"}}, "WordLevel"),
    ],
)  # fmt: skip
def test_tokenizers_without_an_equal_are_refused(
    change: dict[str, Any], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    stored = json.loads((tiny_model / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored | change))
    with pytest.raises(ModelError, match=message):
        read_vocabulary(tmp_path, 400)


DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[4] / "shared" / "datasets"))
PROMPTS = 50


@pytest.fixture
def starter() -> Path:
    if not is_here("starter"):
        pytest.skip("the starter is not on this machine")
    return resolve_base("starter")


def test_starter_tokenizer_is_smollm(starter: Path) -> None:
    assert read_vocabulary(starter, 49_152).pre == "smollm"


@pytest.mark.long
def test_starter_in_f16_on_fifty_prompts(starter: Path, tmp_path: Path) -> None:
    if not (DATASETS / "banking77").is_dir():
        pytest.skip("no datasets here; OWNCHAT_DATASETS names their folder")
    with open(DATASETS / "banking77" / "train.csv", newline="", encoding="utf-8") as handle:
        rows = [row["text"].strip() for row in csv.DictReader(handle)]
    asked = [[{"role": "user", "content": text}] for text in rows[:: len(rows) // PROMPTS][:PROMPTS]]
    file = gguf_file.write_gguf(starter, tmp_path / "f16.gguf", "f16")
    with LlamaCpp(file, pieces(starter), context=512, threads=1) as engine:
        found = parity.compare(
            engine, load_model(starter), load_tokenizer(starter), asked, TOLERANCES["f16"], texts=TEXTS
        )
    assert found.prompts == PROMPTS and found.largest < 0.05
