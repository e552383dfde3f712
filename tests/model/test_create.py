"""A model from nothing: its size is what is said, its start what the papers say, its directory a plain one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ownchat.errors import ConfigError
from ownchat.generate.export import check_result
from ownchat.model import shape
from ownchat.model.create import Size, config_of, create, initial_std, save
from ownchat.model.load import load_model, load_tokenizer
from ownchat.model.presets import PRESETS, parse_size, preset_name

SMALL = Size("qwen3", 3, 64, 4, 2, 192, 320, 128)
ARCHITECTURES = {
    "qwen3": SMALL,
    "llama": replace(SMALL, architecture="llama"),
    "gpt2": replace(SMALL, architecture="gpt2", kv_heads=4, inner=256),
}


def on_meta(size: Size) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config_of(size))


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_are_counted(name: str, tied: bool) -> None:
    for size in (ARCHITECTURES[name], replace(ARCHITECTURES[name], width=96, layers=2, heads=3, kv_heads=3, vocab=777)):
        size = replace(size, tied=tied)
        model = on_meta(size)
        assert size.parameters == sum(weight.numel() for weight in model.parameters())
        tables = {id(part.weight): part.weight for part in model.modules() if isinstance(part, torch.nn.Embedding)}
        tables[id(model.get_output_embeddings().weight)] = model.get_output_embeddings().weight
        assert size.embedding_parameters == sum(weight.numel() for weight in tables.values())


@pytest.mark.parametrize("name", PRESETS)
def test_published_sizes(name: str) -> None:
    """The weights that the papers state, with GPT-2's 50,257 tokens, counted on the instantiated model."""
    preset = PRESETS[name]
    size = Size(
        "gpt2", preset.layers, preset.width, preset.heads, preset.heads, 4 * preset.width, 50257, preset.context
    )
    published = {
        "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200,
        "gpt3-125m": 125e6, "gpt3-350m": 350e6, "gpt3-760m": 760e6, "gpt3-1.3b": 1.3e9, "gpt3-2.7b": 2.7e9,
        "gpt3-6.7b": 6.7e9, "gpt3-13b": 13e9,
    }  # fmt: skip
    assert size.parameters == sum(weight.numel() for weight in on_meta(size).parameters())
    assert size.parameters == pytest.approx(published[name], rel=0.02 if name.startswith("gpt3") else 0)
    assert parse_size(name.upper()) is preset and preset_name(preset) == name


@pytest.mark.parametrize("text", ["", "30", "30X", "gpt2-mediun", "-3M", "0", "M", "1e6"])
def test_sizes_that_are_none(text: str) -> None:
    if text == "30":
        assert parse_size(text) == 30
        return
    with pytest.raises(ConfigError, match="no size of a model") as caught:
        parse_size(text)
    assert ('did you mean "gpt2-medium"' if "mediun" in text else "What to do") in str(caught.value)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_start(name: str, tokenizer: Any) -> None:
    size = ARCHITECTURES[name]
    state = torch.get_rng_state()
    model = create(size, tokenizer, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    again, other = create(size, tokenizer, seed=1), create(size, tokenizer, seed=2)
    for (key, weight), same, else_ in zip(
        model.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert weight.dtype == torch.float32 and torch.equal(weight, same)
        if weight.ndim == 1:
            assert torch.equal(weight, torch.full_like(weight, 0.0 if key.endswith("bias") else 1.0))
            continue
        assert not torch.equal(weight, else_)
        wanted = initial_std(size.width)
        if key.endswith(("o_proj.weight", "down_proj.weight", "c_proj.weight")):
            wanted /= (2 * size.layers) ** 0.5
        assert float(weight.detach().std()) == pytest.approx(wanted, rel=0.1), key
    # nothing is known yet: about as unsure as among all tokens
    ids = torch.arange(3, 60)[None]
    assert float(model(input_ids=ids, labels=ids).loss.detach()) == pytest.approx(math.log(320), rel=0.1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_directory_opens_everywhere(name: str, tokenizer: Any, tmp_path: Path) -> None:
    model = create(ARCHITECTURES[name], tokenizer, seed=0)
    save(model, tokenizer, tmp_path)
    assert check_result(tmp_path, model, list(range(3, 40))) == 0
    opened: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert opened.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert opened.config.max_position_embeddings == 128 and opened.dtype == torch.float32
    mine = AutoTokenizer.from_pretrained(tmp_path)
    ids = mine.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_tensors="pt"
    )
    ids = ids if isinstance(ids, torch.Tensor) else ids["input_ids"]
    assert opened.generate(input_ids=ids, max_new_tokens=3).shape[1] <= ids.shape[1] + 3
    packed = load_model(tmp_path, packed=True)
    assert packed.config._attn_implementation != opened.config._attn_implementation, "trains on packed documents"
    assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".safetensors", ".jinja"}


# ------------------------------------------------------------------------------------------------------- shapes


def cases() -> Iterator[tuple[int, int]]:
    for weights in (200_000, 500_000, 1_000_000, 3_000_000, 10_000_000):
        yield weights, 512
    for weights in (5_000_000, 10_000_000, 30_000_000, 100_000_000, 350_000_000):
        yield weights, 8192
    for weights in (60_000_000, 124_000_000, 500_000_000, 1_300_000_000, 7_000_000_000, 13_000_000_000):
        yield weights, 32_768


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize(("weights", "vocab"), cases())
def test_shape_of_a_size(weights: int, vocab: int, architecture: Any) -> None:
    size = shape.size_of(weights, architecture=architecture, vocab=vocab, context=512, shape={})
    assert size.parameters == pytest.approx(weights, rel=0.1)
    assert (
        size.width % (64 if size.width >= 256 else 32) == 0
        and size.inner % 64 == 0
        and size.head_width in (32, 64, 128)
    )
    assert size.layers >= 2 and 15 <= size.width / size.layers <= 180
    assert size.embedding_parameters < 0.9 * size.parameters
    assert size.tied or weights > 4e9
    for part in ("layers", "width", "heads", "kv_heads", "inner"):  # given back, it is the same model
        again = shape.size_of(
            weights, architecture=architecture, vocab=vocab, context=512, shape={part: getattr(size, part)}
        )
        assert getattr(again, part) == getattr(size, part)


def test_a_dial_turns_one_way() -> None:
    """More weights asked for is never a smaller model, and no step is missing."""
    asked = [round(300_000 * 1.1**n) for n in range(100)]
    made = [
        shape.size_of(n, architecture="qwen3", vocab=4096, context=512, shape={}).parameters for n in asked if n > 4e5
    ]
    assert made == sorted(made)


@pytest.mark.parametrize(
    ("given", "weights", "message"),
    [
        ({"width": 100, "heads": 3, "layers": 2}, None, "cannot be shared by 3 heads"),
        ({"width": 128, "heads": 4, "kv_heads": 3, "layers": 2}, None, "4 heads cannot share 3"),
        ({"width": 128, "heads": 0, "layers": 2}, None, "at least 1"),
        ({"width": 128, "layers": 4}, 10_000_000, "leave one of the two out"),
        ({"layers": 1000}, 1_000_000, "no model of 1M weights has this shape"),
        ({}, 100_000, "the smallest model has"),
    ],
)
def test_shapes_that_cannot_be(given: dict[str, int], weights: int | None, message: str) -> None:
    rest: dict[str, Any] = {"architecture": "qwen3", "vocab": 4096, "context": 512, "shape": given}
    with pytest.raises(ConfigError, match=message):
        shape.given_size(**rest) if weights is None else shape.size_of(weights, **rest)


def test_the_smallest_size_that_is_named_can_be_made() -> None:
    with pytest.raises(ConfigError) as caught:
        shape.size_of(100_000, architecture="llama", vocab=4096, context=512, shape={})
    named = parse_size(str(caught.value).split("--size ")[1].split()[0])
    assert isinstance(named, int)
    made = shape.size_of(named, architecture="llama", vocab=4096, context=512, shape={})
    assert made.parameters == pytest.approx(named, rel=0.1)
