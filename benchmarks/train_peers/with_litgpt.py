"""LitGPT's ``finetune_lora`` and ``finetune_full`` with their defaults, on the rows' own ids and labels.

Runs in an environment of its own, which holds neither transformers nor this project. Only the adapter is not the
default: rank, alpha and layers are those of the other sides, without dropout.

    python with_litgpt.py --convert BASE DIRECTORY     a Hugging Face directory as a LitGPT checkpoint
    python with_litgpt.py TASK.json                    train
"""

from __future__ import annotations

import contextlib
import inspect
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from clock import Clock, Enough, read_rows, read_task
from litgpt.config import Config
from litgpt.data import DataModule, get_sft_collate_fn
from litgpt.finetune import full, lora
from litgpt.lora import merge_lora_weights
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from litgpt.scripts.convert_lit_checkpoint import convert_lit_checkpoint
from litgpt.utils import get_default_supported_precision, save_config
from torch.utils.data import DataLoader


def convert(base: Path, directory: Path) -> None:
    """``directory`` is named after the model: LitGPT looks its architecture up by that name."""
    shutil.copytree(base, directory)
    convert_hf_checkpoint(checkpoint_dir=directory, model_name=directory.name)


class Rows(DataModule):
    """The benchmark's rows; LitGPT's own data modules know one question and one answer."""

    def __init__(self, task: dict[str, Any], clock: Clock) -> None:
        super().__init__()
        self.task, self.clock, self.batch_size = task, clock, 1

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None, **_: Any) -> None:
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        collate = get_sft_collate_fn()

        def counted(samples: list[dict[str, Any]]) -> dict[str, Any]:
            self.clock.count(sum(len(sample["input_ids"]) for sample in samples))
            return collate(samples)

        generator = torch.Generator().manual_seed(0)
        rows = self._samples("train")
        return DataLoader(rows, batch_size=self.batch_size, shuffle=True, generator=generator, collate_fn=counted)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self._samples("valid"), batch_size=self.batch_size, collate_fn=get_sft_collate_fn())

    def _samples(self, split: str) -> list[dict[str, Any]]:
        samples = []
        for row in read_rows(self.task, split):
            counts = {"raw": len(row["ids"]), "raw_plus_prompt_template": len(row["ids"])}
            ids, labels = torch.tensor(row["ids"]), torch.tensor(row["labels"])
            samples.append({"input_ids": ids, "labels": labels, "token_counts": counts})
        return samples


def main() -> None:
    task = read_task()
    clock = Clock(task)
    checkpoint, output = Path(task["settings"]["checkpoint"]), Path(task["output"])
    module = lora if task["method"] == "lora" else full
    defaults = inspect.signature(module.setup).parameters["train"].default
    defaults.epochs = 10**6  # ended by the clock, not by epochs; lr_max_steps is of no use while warming up
    keywords: dict[str, Any] = {}
    if task["method"] == "lora":
        layers = ("query", "key", "value", "projection", "mlp")
        keywords = {f"lora_{layer}": True for layer in layers}
        keywords |= {"lora_r": task["rank"], "lora_alpha": task["alpha"], "lora_dropout": 0.0}
    trained: dict[str, Any] = {}
    plain_fit = module.fit

    def fit(*arguments: Any, **given: Any) -> Any:  # the model is known nowhere else
        model = given.get("model")
        if model is None:
            model = next(value["model"] for value in [*arguments, *given.values()] if _has_model(value))
        trained["model"] = model
        return plain_fit(*arguments, **given)

    module.fit = fit
    with contextlib.suppress(Enough):
        module.setup(checkpoint, output / "litgpt", data=Rows(task, clock), train=defaults, **keywords)
    directory = output / "model"
    clock.write(
        dtype=get_default_supported_precision(training=True),
        packages=("litgpt", "lightning"),
        steps=len(clock.ends),
        model=str(directory),
    )
    if task["minutes"] is not None:
        save(trained["model"], checkpoint, directory, merge=task["method"] == "lora")


def _has_model(value: Any) -> bool:
    return isinstance(value, dict) and "model" in value


def save(model: Any, checkpoint: Path, directory: Path, *, merge: bool) -> None:
    """The weights under their Hugging Face names: ``directory/model.pth``."""
    plain = model
    while hasattr(plain, "_forward_module") or hasattr(plain, "_orig_mod"):
        plain = getattr(plain, "_forward_module", None) or plain._orig_mod
    if merge:
        merge_lora_weights(plain)
    weights = {
        name.replace("linear.", ""): tensor for name, tensor in plain.state_dict().items() if "lora_" not in name
    }
    directory.mkdir(parents=True, exist_ok=True)
    torch.save({"model": weights}, directory / "lit_model.pth")
    save_config(Config.from_file(checkpoint / "model_config.yaml"), directory)
    convert_lit_checkpoint(directory, directory)


if __name__ == "__main__":
    if sys.argv[1] == "--convert":
        convert(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
