"""LoRA adapters on a transformers model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownchat.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_adapter(model: PreTrainedModel, directory: Path) -> Any:
    """``model`` with the PEFT adapter of ``directory`` on it; pickled adapters are refused."""
    check_files(directory)
    from ownchat.model import lora  # brings PEFT, which a chat with a finished model does not need

    return lora.load_adapter(model, directory).eval()


def load_adapters(model: Any, adapters: Mapping[str, Path]) -> tuple[Any, dict[str, str]]:
    """``model`` with several PEFT adapters on it, the first switched on; and what PEFT calls each."""
    from peft import PeftModel

    names = {name: f"a{number}" for number, name in enumerate(adapters)}  # PEFT's may hold no dots
    for name, directory in adapters.items():
        check_files(directory)
        if isinstance(model, PeftModel):
            model.load_adapter(directory, adapter_name=names[name])
        else:
            model = PeftModel.from_pretrained(model, directory, adapter_name=names[name])
    return model.eval(), names


def check_files(directory: Path) -> None:
    """Raise :class:`~ownchat.errors.ModelError` unless a directory holds an adapter that is safe to open."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (directory / name).is_file():
            raise ModelError(
                f"no {name} here", where=str(directory), fix="give the adapter directory of a run (5-train/adapter)"
            )
