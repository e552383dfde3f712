"""Unsloth on a GPU: its model and kernels under TRL's trainer, as its own notebooks use it (no quantisation)."""

from __future__ import annotations

import contextlib
from pathlib import Path

import unsloth  # isort: split (before transformers and trl: it changes both when it is imported)
from clock import Clock, Enough, measured_trainer, read_rows, read_task, trainer_settings
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    task = read_task()
    clock = Clock(task)
    full = task["method"] == "full"
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        task["base"], max_seq_length=2048, load_in_4bit=False, full_finetuning=full
    )
    if not full:
        model = unsloth.FastLanguageModel.get_peft_model(
            model, r=task["rank"], lora_alpha=task["alpha"], target_modules=LAYERS
        )
    rows = [{"input_ids": row["ids"], "labels": row["labels"]} for row in read_rows(task)]
    trainer = measured_trainer(SFTTrainer, clock)(
        model=model,
        args=SFTConfig(**trainer_settings(task), max_length=2048, **task["settings"].get("config", {})),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    with contextlib.suppress(Enough):
        trainer.train()
    directory = Path(task["output"]) / "model"
    if task["minutes"] is not None:
        trainer.save_model(str(directory))
    packages = ("unsloth", "trl", "transformers", "peft")
    clock.write(dtype=str(model.dtype), packages=packages, steps=len(clock.ends), model=str(directory))


if __name__ == "__main__":
    main()
