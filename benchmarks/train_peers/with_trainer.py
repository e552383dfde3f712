"""transformers' Trainer with PEFT: its defaults (batches of eight, float32), padded to the longest row of a batch."""

from __future__ import annotations

import contextlib
from pathlib import Path

from clock import Clock, Enough, measured_trainer, read_rows, read_task, trainer_settings
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

LONG = 1024  # full logits of eight rows of 2,048 tokens are 3 GB, several times over: those rows go two at a time


def main() -> None:
    task = read_task()
    clock = Clock(task)
    tokenizer = AutoTokenizer.from_pretrained(task["base"])
    model = AutoModelForCausalLM.from_pretrained(task["base"], dtype="float32")
    if task["method"] == "lora":
        model = get_peft_model(model, LoraConfig(r=task["rank"], lora_alpha=task["alpha"], target_modules="all-linear"))
    rows = [
        {"input_ids": row["ids"], "labels": row["labels"], "attention_mask": [1] * len(row["ids"])}
        for row in read_rows(task)
    ]
    longest = max(len(row["input_ids"]) for row in rows)
    batch = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4} if longest > LONG else {}
    settings = TrainingArguments(**trainer_settings(task), **batch)
    trainer = measured_trainer(Trainer, clock)(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=None),
        processing_class=tokenizer,
    )
    with contextlib.suppress(Enough):
        trainer.train()
    directory = Path(task["output"]) / "model"
    if task["minutes"] is not None:
        trainer.save_model(str(directory))
    dtype = "float32" + (" with bf16 autocast" if settings.bf16 else "")
    clock.write(
        dtype=dtype,
        packages=("transformers", "peft", "accelerate"),
        steps=len(clock.ends),
        model=str(directory),
    )


if __name__ == "__main__":
    main()
