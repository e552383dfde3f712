"""TRL's SFTTrainer: its defaults, or settings that the parent chose. Nothing is patched but the clock."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from clock import Clock, Enough, Task, measured_trainer, read_rows, read_task, trainer_settings
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main() -> None:
    task = read_task()
    clock = Clock(task)
    chosen = task["settings"]
    settings = SFTConfig(**trainer_settings(task) | chosen.get("config", {}))
    adapter = LoraConfig(r=task["rank"], lora_alpha=task["alpha"], target_modules="all-linear")
    model: Any = task["base"]
    if chosen.get("adapter_in_model_type") and task["method"] == "lora":
        loaded = AutoModelForCausalLM.from_pretrained(model, **settings.model_init_kwargs or {})
        model, settings.model_init_kwargs = get_peft_model(loaded, adapter, autocast_adapter_dtype=False), None
    trainer = measured_trainer(SFTTrainer, clock)(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(rows(task)),
        processing_class=AutoTokenizer.from_pretrained(task["base"]),
        peft_config=adapter if isinstance(model, str) and task["method"] == "lora" else None,
    )
    with contextlib.suppress(Enough):
        trainer.train()
    weights = next(parameter for name, parameter in trainer.model.named_parameters() if "embed_tokens" in name)
    dtype = str(weights.dtype).removeprefix("torch.") + (" with bf16 autocast" if settings.bf16 else "")
    directory = Path(task["output"]) / "model"
    if task["minutes"] is not None:
        trainer.save_model(str(directory))
    packages = ("trl", "transformers", "peft", "accelerate", "datasets")
    clock.write(dtype=dtype, packages=packages, steps=len(clock.ends), model=str(directory))


def rows(task: Task) -> list[dict[str, Any]]:
    """Rows as a user of the defaults has them; or, where so chosen, as ids with the replies' tokens as labels.

    Conversations of several turns train on all tokens by default: assistant-only loss refuses the starter's template,
    which has no generation marks. Tokens with labels of one's own are what a careful user would give instead.
    """
    if task["settings"].get("tokens"):
        return [{"input_ids": row["ids"], "labels": row["labels"]} for row in read_rows(task)]
    fields = ("messages", "prompt", "completion", "text")
    return [{name: row[name] for name in fields if name in row} for row in read_rows(task)]


if __name__ == "__main__":
    main()
