"""transformers' Trainer on a Qwen3 of the same shape: AdamW, a cosine over its time, float32 or autocast."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import Clock, Enough, measured_trainer, read_task, trainer_settings
from schedule import batch_of, rate_share
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments, set_seed

MICRO_BATCH = 8


class Windows(Dataset):
    """Blocks of the context's length, end to end."""

    def __init__(self, tokens: np.ndarray, context: int) -> None:
        self.tokens, self.context = tokens, context

    def __len__(self) -> int:
        return len(self.tokens) // self.context

    def __getitem__(self, number: int) -> dict[str, Any]:
        ids = self.tokens[number * self.context : (number + 1) * self.context].tolist()
        return {"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)}


def main() -> None:
    task = read_task()
    clock, directory = Clock(task), Path(task["directory"])
    set_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory / "base"), dtype=torch.float32)
    sequences, micro = batch_of(task, MICRO_BATCH)
    settings = trainer_settings(task) | {
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": sequences // micro,
        "learning_rate": task["learning_rate"],
        "weight_decay": 0.1,
        "adam_beta2": 0.95,
        "bf16": task["bfloat16"],
    }

    class Timed(measured_trainer(Trainer, clock)):  # type: ignore[misc]
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            optimizer = self.optimizer if optimizer is None else optimizer
            share = rate_share(clock)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share())
            return self.lr_scheduler

    trainer = Timed(
        model=model,
        args=TrainingArguments(**settings),
        train_dataset=Windows(np.load(directory / "train.npy"), task["context"]),
    )
    with contextlib.suppress(Enough):
        trainer.train()
    target = Path(task["output"]) / "model"
    model.save_pretrained(target)
    clock.write(
        dtype="bfloat16 autocast" if task["bfloat16"] else "float32",
        packages=("transformers", "accelerate"),
        steps=len(clock.ends),
        trained_tokens=sum(clock.tokens),
        model=str(target),
    )


if __name__ == "__main__":
    main()
