"""Models, and a server, that only the tests of generation need."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai_server import OpenAIServer


@pytest.fixture(scope="session")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter for ``tiny_model`` with random matrices, so that it changes the answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    directory = tmp_path_factory.mktemp("adapter")
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(directory)
    return directory


@pytest.fixture
def make_run(tiny_model: Path, adapter: Path, tmp_path: Path) -> Callable[..., Path]:
    """``make_run(with_adapter=...)``: the directory of a run whose training is complete."""
    from ownchat.generate.export import merge_adapter

    def make(*, with_adapter: bool = True, finished: bool = True) -> Path:
        stage = tmp_path / "run" / "5-train"
        merge_adapter(tiny_model, adapter, stage / "model")
        note = {"system": "Answer in one word.", "base": str(tiny_model)}
        (stage / "model" / "ownchat.json").write_text(json.dumps(note))
        if with_adapter:
            shutil.copytree(adapter, stage / "adapter")
        if finished:
            (stage / "manifest.json").write_text("{}")
        return stage.parent

    return make


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    """A server of this machine that speaks OpenAI's API, and no key."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = OpenAIServer()
    yield made
    made.close()
