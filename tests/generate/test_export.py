"""The result is a plain Hugging Face directory: equal logits, right end tokens, an adapter that PEFT loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ownchat.errors import ModelError
from ownchat.generate.end_tokens import end_token_ids
from ownchat.generate.export import check_result, merge_adapter, save_result

SAMPLE = list(range(3, 120, 2))


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.tensor([SAMPLE])).logits


def test_saved_directory_is_equal_in_plain_transformers(tiny_model: Path, tmp_path: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.norm.weight += 0.3  # not the weights that were read
    directory = save_result(model, tokenizer, tmp_path / "result")
    names = {path.name for path in directory.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]

    opened = AutoModelForCausalLM.from_pretrained(directory)
    assert torch.equal(logits(opened), logits(model))
    assert check_result(directory, model, SAMPLE) == 0
    again = AutoTokenizer.from_pretrained(directory)
    messages = [{"role": "user", "content": "Grüße 🙂"}]
    assert again.apply_chat_template(messages, add_generation_prompt=True) == tokenizer.apply_chat_template(
        messages, add_generation_prompt=True
    )


def test_end_and_padding_tokens(tiny_model: Path, tmp_path: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.eos_token = "<|endoftext|>"  # as base models have it, while the template ends turns with another
    tokenizer.pad_token = None
    model.generation_config.eos_token_id = model.config.eos_token_id = 0
    directory = save_result(model, tokenizer, tmp_path / "result")
    written = json.loads((directory / "generation_config.json").read_text())
    assert written["eos_token_id"] == [2, 0]
    assert written["pad_token_id"] == 0
    assert AutoTokenizer.from_pretrained(directory).pad_token == "<|endoftext|>"
    assert tokenizer.pad_token is None, "what was passed in stays as it was"

    opened = AutoModelForCausalLM.from_pretrained(directory)
    assert opened.generation_config.eos_token_id == [2, 0]
    prompt = torch.tensor([SAMPLE])
    answers = opened.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=200, do_sample=True)
    answer = answers[0, len(SAMPLE) :].tolist()
    assert not {0, 2} & set(answer[:-1])


def test_end_tokens_may_be_given(tiny_model: Path, tmp_path: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    directory = save_result(model, tokenizer, tmp_path / "result", end_ids=[7, 2])
    assert json.loads((directory / "generation_config.json").read_text())["eos_token_id"] == [7, 2]


def test_no_end_token_at_all_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = tokenizer.eos_token = None
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    assert end_token_ids(tokenizer, model) == []
    with pytest.raises(ModelError, match="end token"):
        save_result(model, tokenizer, tmp_path / "result")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% for m in messages %}[{{ m.role }}] {{ m.content }} <|endoftext|>{% endfor %}", [0, 2]),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", [2]),
        ("{{ raise_exception('never') }}", [2]),
        (None, [2]),
    ],
)
def test_end_of_turn_is_found_by_rendering(tiny_model: Path, template: str | None, expected: list[int]) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = template
    assert end_token_ids(tokenizer, model) == expected


def test_every_source_of_end_tokens_counts(tiny_model: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    model.generation_config.eos_token_id, model.config.eos_token_id = [7, 9], 8
    tokenizer.eos_token = "<|endoftext|>"
    assert end_token_ids(tokenizer, model) == [2, 7, 9, 8, 0]


def test_a_directory_that_differs_is_found(tiny_model: Path, tmp_path: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    directory = save_result(model, tokenizer, tmp_path / "result")
    weights = load_file(directory / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.01
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="logits differ"):
        check_result(directory, model, SAMPLE)
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="nan"):
        check_result(directory, model, SAMPLE)


@pytest.mark.parametrize("missing", ["chat_template.jinja", "generation_config.json"])
def test_a_directory_without_its_parts_is_found(tiny_model: Path, tmp_path: Path, missing: str) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    directory = save_result(model, tokenizer, tmp_path / "result")
    (directory / missing).unlink()
    config = json.loads((directory / "config.json").read_text())
    config["eos_token_id"] = None
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"chat template|end token"):
        check_result(directory, model, SAMPLE)


def test_merged_equals_the_adapter_in_peft(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM, PeftModel

    merged = AutoModelForCausalLM.from_pretrained(merge_adapter(tiny_model, adapter, tmp_path / "merged"))
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    untuned = logits(base)
    worn = PeftModel.from_pretrained(base, adapter)
    assert (logits(merged) - logits(worn)).abs().max() < 1e-4
    assert (logits(merged) - untuned).abs().max() > 0.1, "the adapter does something"
    assert (logits(AutoPeftModelForCausalLM.from_pretrained(adapter)) - logits(worn)).abs().max() < 1e-4
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template is not None


def test_the_adapters_own_tokenizer_wins(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    with_tokenizer = shutil.copytree(adapter, tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    tokenizer.save_pretrained(with_tokenizer)
    merged = merge_adapter(tiny_model, with_tokenizer, tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(merged).chat_template == tokenizer.chat_template
