"""A model with another tokenizer: known tokens keep their rows, the others begin where their text was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ownchat.config import load_config
from ownchat.errors import ConfigError
from ownchat.model.load import load_model, load_tokenizer
from ownchat.model.resize import fit_vocabulary, is_needed, run_resize
from ownchat.tokenizer.learn import learn

TEXT = "The parcel has not arrived yet. Please close the valve and wait for ten minutes."


@pytest.fixture
def own_tokenizer(tmp_path: Path) -> Path:
    learn([TEXT] * 30, num_bytes=1, vocab=300, output=tmp_path / "own", context=256)
    return tmp_path / "own"


def with_more_tokens(tiny_model: Path, directory: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["<|note|>", "<|aside|>"], special_tokens=True)
    tokenizer.save_pretrained(directory)
    return directory


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def test_added_tokens_change_nothing_of_the_others(tiny_model: Path, tmp_path: Path) -> None:
    more = load_tokenizer(with_more_tokens(tiny_model, tmp_path / "more"))
    plain, model = load_model(tiny_model), load_model(tiny_model)
    old = load_tokenizer(tiny_model)
    assert fit_vocabulary(model, old, more) == {"kept": len(old), "pieces": 0, "new": 2}
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == len(old) + 2
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight, "still tied"
    ids = more.encode(TEXT)
    assert torch.equal(logits(model, ids)[:, : len(old)], logits(plain, ids))
    first, second = model.get_input_embeddings().weight[len(old) :]
    assert not torch.equal(first, second)
    again = load_model(tiny_model)
    fit_vocabulary(again, old, more)
    assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight), "seeded"


def test_another_tokenizer_takes_over_what_is_known(tiny_model: Path, own_tokenizer: Path, tmp_path: Path) -> None:
    assert is_needed(tiny_model, own_tokenizer) and not is_needed(tiny_model, tiny_model)
    config, _ = load_config(sets=["train.method=full", f"tokenizer.base={own_tokenizer}"])
    report = run_resize(config, {"base": tiny_model, "tokenizer": own_tokenizer}, tmp_path / "4-model")
    old, new = AutoTokenizer.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tmp_path / "4-model")
    assert report.counts["kept"] + report.counts["pieces"] + report.counts["new"] == len(new) == 300
    assert report.counts["kept"] >= 256 + 3 and report.counts["pieces"] > 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "4-model")
    before = AutoModelForCausalLM.from_pretrained(tiny_model).get_input_embeddings().weight
    after = model.get_input_embeddings().weight
    shared = set(old.get_vocab()) & set(new.get_vocab())
    for token in shared:
        assert torch.equal(after[new.convert_tokens_to_ids(token)], before[old.convert_tokens_to_ids(token)]), token
    split = next(token for token, id in new.get_vocab().items() if token not in shared and id >= 4)
    parts = old.encode(new.decode([new.convert_tokens_to_ids(split)]))
    torch.testing.assert_close(after[new.convert_tokens_to_ids(split)], before[parts].mean(0))
    assert (model.config.eos_token_id, model.generation_config.eos_token_id) == (2, 2) == (new.eos_token_id,) * 2
    again = run_resize(config, {"base": tiny_model, "tokenizer": own_tokenizer}, tmp_path / "4-model")
    assert again.seconds == report.seconds, "unchanged inputs: the stage was not run again"


def test_a_head_of_its_own_gets_its_own_rows(tiny_model: Path, own_tokenizer: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = LlamaConfig.from_pretrained(tiny_model, tie_word_embeddings=False)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "untied")
    for file in tiny_model.glob("*token*"):
        shutil.copy(file, tmp_path / "untied")
    model, plain = load_model(tmp_path / "untied"), load_model(tmp_path / "untied")
    old, new = load_tokenizer(tiny_model), load_tokenizer(own_tokenizer)
    fit_vocabulary(model, old, new)
    head, before = model.get_output_embeddings().weight, plain.get_output_embeddings().weight
    assert head is not model.get_input_embeddings().weight
    end = "<|im_end|>"
    assert torch.equal(head[new.convert_tokens_to_ids(end)], before[old.convert_tokens_to_ids(end)])


def test_an_adapter_does_not_train_rows(tiny_model: Path, own_tokenizer: Path, tmp_path: Path) -> None:
    config, _ = load_config(sets=[f"tokenizer.base={own_tokenizer}"])
    with pytest.raises(ConfigError, match="an adapter does not train them"):
        run_resize(config, {"base": tiny_model, "tokenizer": own_tokenizer}, tmp_path / "4-model")
