"""Tokenizers that are learned here, in llama.cpp: the same tokens for any text, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Qwen3Config

from ownchat.errors import ModelError
from ownchat.generate.exports import gguf_file, parity
from ownchat.generate.exports.llamacpp import LlamaCpp
from ownchat.generate.exports.parity import Tolerance
from ownchat.generate.exports.vocabulary import read_vocabulary
from ownchat.pipeline.export import QUESTIONS, TEXTS
from ownchat.tokenizer.learn import Kind, learn

CORPUS = [f"{question} {text}" for question in QUESTIONS for text in TEXTS] * 5


def exported(kind: Kind, directory: Path) -> Path:
    """A GGUF file of a random Qwen3 with a tokenizer of this kind; the model beside it."""
    size = sum(len(text.encode()) for text in CORPUS)
    tokenizer = learn(CORPUS, kind=kind, num_bytes=size, output=directory, context=256)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, head_dim=16, max_position_embeddings=256, initializer_range=0.1,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return gguf_file.write_gguf(directory, directory / "model.gguf", "f16")


@pytest.mark.parametrize("kind", ["bpe", "word", "byte"])
def test_same_model_and_same_tokens(kind: Kind, tmp_path: Path) -> None:
    from ownchat.model.load import load_model, load_tokenizer

    file = exported(kind, tmp_path)
    tokenizer, model = load_tokenizer(tmp_path), load_model(tmp_path)
    asked = [[{"role": "user", "content": text}] for text in QUESTIONS[:3]]
    asked.append([{"role": "system", "content": "Be kind."}, *asked[0]])
    pieces = read_vocabulary(tmp_path, len(tokenizer)).pieces()
    with LlamaCpp(file, pieces, context=256, threads=1) as engine:
        found = parity.compare(engine, model, tokenizer, asked, Tolerance(0.05, 0.01), texts=TEXTS)
        assert found.prompts == 4

        @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
        def same(text: str) -> None:
            ours = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
            assert engine.tokenize(text, control=False) == ours

        same()


def test_characters_have_no_equal(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no equal.*\n.*--to vllm"):
        exported("char", tmp_path)
