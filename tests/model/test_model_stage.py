"""Stage 4-model: made once, from the tokens and the settings; refused before any weight is made."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ownchat import artifacts
from ownchat.config import Config, DataConfig
from ownchat.errors import ConfigError, DataError
from ownchat.model import stage
from ownchat.model.create import Size
from ownchat.model.load import load_model
from ownchat.model.presets import parse_size
from ownchat.tokenizer import stage as tokenizer
from ownchat.tokenizer.store import TokenWriter


def settings(size: str | None = "300k", **train: Any) -> Config:
    return Config.model_validate({"model": {"base": "scratch", "size": size}, "train": train})


@pytest.fixture
def inputs(tiny_model: Path, tmp_path: Path) -> dict[str, Path]:
    """A store of 20,000 tokens to pre-train on, and an empty one of conversations."""
    tokenizer.run_tokenizer(Config(), {"base": tiny_model}, tmp_path / "3-tokenizer")
    for name, documents in (("pretrain/train", 100), ("train", 0)):
        with TokenWriter(tmp_path / "4-tokens" / name, 320) as writer:
            for number in range(documents):
                ids = [3 + (number + at) % 300 for at in range(200)]
                writer.add(ids, [1] * 200, id=f"{number}", record=f"{number}", piece=0, group=None, kind="document")
    artifacts.write_json(tmp_path / "4-tokens" / artifacts.MANIFEST, {"key": "tokens"})
    return {"tokens": tmp_path / "4-tokens", "tokenizer": tmp_path / "3-tokenizer"}


def make(config: Config, inputs: dict[str, Path], output: Path, speed: float = 1e11, **options: Any) -> Any:
    return stage.run_model(config, inputs, output, flops_per_second=lambda: speed, **options)


def test_made_once(inputs: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "4-model"
    report = make(settings(), inputs, output)
    said = json.loads((output / stage.NAME).read_text())
    assert said == json.loads(json.dumps(report.details)) and report.counts["parameters"] == said["size"]["parameters"]
    model = load_model(output)
    assert sum(weight.numel() for weight in model.parameters()) == report.counts["parameters"]
    assert (said["size"]["vocab"], said["size"]["context"]) == (model.config.vocab_size, 512)

    made = (output / "model.safetensors").stat().st_mtime_ns

    def never() -> float:
        raise AssertionError("a finished stage measures nothing")

    again = stage.run_model(settings(), inputs, output, flops_per_second=never)
    assert again.details == json.loads(json.dumps(report.details))
    assert (output / "model.safetensors").stat().st_mtime_ns == made
    first = load_file(output / "model.safetensors")
    make(settings(seed=1), inputs, output)
    second = load_file(output / "model.safetensors")
    name = next(name for name in first if "q_proj" in name)
    assert first.keys() == second.keys() and not torch.equal(first[name], second[name]), "another seed"


def test_planned_without_weights(inputs: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "4-model"
    report = make(settings("gpt3-13b"), inputs, output, weights=False)
    assert {path.name for path in output.iterdir()} == {"config.json", "dial.json", "manifest.json"}
    assert report.counts["parameters"] > 12.5e9
    make(settings(), inputs, output, weights=False)
    make(settings(), inputs, output)
    assert (output / "model.safetensors").is_file(), "a plan is no model"
    assert artifacts.completed(output, artifacts.stage_key(settings(), stage.SECTIONS, inputs)) is not None
    make(settings(), inputs, output, weights=False)
    assert (output / "model.safetensors").is_file(), "planning takes no model away"


def test_a_size_that_cannot_fit(inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = Size("gpt2", 40, 5120, 40, 40, 20480, 50257, 2048)
    with pytest.raises(ConfigError, match="GB of memory") as caught:
        stage.check_room(size, tmp_path, memory=8 * 10**9, disk=10**13)
    named = parse_size(str(caught.value).split("--size ")[1].split()[0])
    assert isinstance(named, int) and 2e8 < named <= stage.most_weights(8 * 10**9)
    with pytest.raises(ConfigError, match="GB of disk"):
        stage.check_room(size, tmp_path, memory=10**13, disk=10**10)
    stage.check_room(size, tmp_path, memory=10**13, disk=10**13)
    with pytest.raises(ConfigError) as caught:
        stage.check_room(size, tmp_path, memory=10**8, disk=10**13)
    assert "fits here" not in str(caught.value) and "ownchat plan" in str(caught.value)

    monkeypatch.setattr(stage, "_available", lambda: 2 * 10**9)
    with pytest.raises(ConfigError, match="weights take"):
        make(settings("13B"), inputs, tmp_path / "4-model")
    assert not (tmp_path / "4-model").exists()
    make(settings(None), inputs, tmp_path / "4-model", speed=math.inf)  # what is derived fits by itself


def test_text_that_is_read_more_often_counts(inputs: dict[str, Path], tmp_path: Path) -> None:
    def passes(mix: dict[str, float]) -> float:
        config = settings("300k", minutes=0.01).model_copy(update={"data": DataConfig(mix=mix)})
        return float(make(config, inputs, tmp_path / "4-model").details["pretrain"]["epochs"])

    assert passes({"documents": 2}) == pytest.approx(passes({}) / 2, rel=0.01)


def test_nothing_to_learn_from(inputs: dict[str, Path], tmp_path: Path) -> None:
    with TokenWriter(inputs["tokens"] / "pretrain" / "train", 320):
        pass
    with pytest.raises(DataError, match="no text for a model from nothing"):
        make(settings(), inputs, tmp_path / "4-model")
