"""What may be opened, and what is refused with a clear message."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ownchat.errors import ModelError
from ownchat.model.load import check_vocabulary, load_model, load_tokenizer, resolve_base


def test_directory_without_weights(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model / "config.json", tmp_path)
    with pytest.raises(ModelError, match="no weights"):
        load_model(tmp_path)


def test_pickled_weights_are_not_opened(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model / "config.json", tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled \(pytorch_model.bin\)"):
        load_model(tmp_path)


def test_damaged_weights(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(tmp_path / "model")


def test_tokenizer_that_does_not_fit(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.add_tokens(["<more>", "<than>", "<rows>"])
    with pytest.raises(ModelError, match="do not belong together"):
        check_vocabulary(load_model(tiny_model), tokenizer, tiny_model)


def test_no_such_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="there is no such model"):
        resolve_base("./nothing-here")
    with pytest.raises(ModelError, match="no config\\.json"):
        load_model(tmp_path)


def test_no_tokenizer(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model / "config.json", tmp_path)
    with pytest.raises(ModelError, match="no tokenizer"):
        load_tokenizer(tmp_path)
