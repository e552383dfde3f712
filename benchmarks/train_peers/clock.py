"""What a side's process measures: real tokens and seconds of each optimiser step, peak memory, the first step's end.

Runs in any environment with torch; nothing here needs this project.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

LISTED = 50  # steps whose times stand in the result

Task = dict[str, Any]  # what the parent wants: see train.py, task()


class Enough(Exception):
    """All steps are measured, or the time is up."""


class Clock:
    """Notes the end of every optimiser step of whatever trainer runs in this process, and ends it when it is time.

    A step lasts from the end of the one before to its own end: making the batch belongs to it. ``count`` is told the
    real tokens of each micro-batch.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.ends: list[float] = []
        self.cpu: list[float] = []  # of all threads: says how busy the machine was otherwise
        self.tokens: list[int] = []
        self.losses: list[float] = []
        self.made = time.time()
        self._pending = 0
        register_optimizer_step_post_hook(self._stepped)

    def count(self, tokens: int) -> None:
        self._pending += tokens

    def _stepped(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.time())
        self.cpu.append(time.process_time())
        self.tokens.append(self._pending)
        self._pending = 0
        if self._enough():
            raise Enough

    def _enough(self) -> bool:
        """Measured enough; or, with equal time, no other step like the last one would fit."""
        task, done = self.task, len(self.ends)
        if task["minutes"] is not None:
            last = self.ends[-1] - (self.ends[-2] if done > 1 else self.made)
            return bool(self.ends[-1] + min(last, 60) > deadline(task))
        measured = done - task["warm"]
        late = measured >= 2 and self.ends[-1] - self.ends[task["warm"] - 1] > task["seconds"]
        return bool(measured >= task["steps"] or late)

    def remaining(self) -> float:
        """Share of the equal time that is left: the schedule of a peer that knows how long it may train."""
        whole = deadline(self.task) - self.made
        return max(0.0, (deadline(self.task) - time.time()) / whole)

    def write(self, *, dtype: str, packages: tuple[str, ...], **more: Any) -> None:
        """The result, read by the parent. To be called right after training: the peak is that of the training."""
        warm = self.task["warm"]
        write_result(
            self.task, self.tokens[warm:], spans(self.ends)[warm:], first_step=self.ends[0], last_step=self.ends[-1],
            peak=peak_bytes(), dtype=dtype, packages=packages, losses=self.losses[:3],
            cpu_seconds_per_step=[round(value, 1) for value in spans(self.cpu)[warm:][:LISTED]], **more,
        )  # fmt: skip


def deadline(task: Task) -> float:
    return float(task["started"] + task["minutes"] * 60)


def spans(ends: list[float]) -> list[float]:
    """Seconds of each step; the first one's start is not known to the clock, and it is always warm-up."""
    return [0.0, *(after - before for before, after in itertools.pairwise(ends))]


def write_result(
    task: Task,
    tokens: list[int],
    seconds: list[float],
    *,
    first_step: float,
    last_step: float,
    peak: int,
    dtype: str,
    packages: tuple[str, ...],
    losses: list[float],
    **more: Any,
) -> None:
    """``tokens`` and ``seconds``: of the steps after warm-up."""
    result = {
        "tokens_per_second": round(sum(tokens) / sum(seconds), 1) if seconds else None,
        "measured_steps": len(seconds),
        "tokens_per_step": round(sum(tokens) / len(tokens)) if tokens else None,
        "seconds_per_step": [round(value, 2) for value in seconds[:LISTED]],
        "first_step_seconds": round(first_step - task["started"], 1),
        "trained_seconds": round(last_step - task["started"], 1),
        "peak_memory_gb": round(peak / 1e9, 2),
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "first_losses": [round(loss, 4) for loss in losses],
        "versions": {name: importlib.metadata.version(name) for name in ("torch", *packages)},
    } | more
    Path(task["result"]).write_text(json.dumps(result), encoding="utf-8")


def peak_bytes() -> int:
    """Most memory that this process ever held: resident, or on the GPU where it trains there."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("VmHWM is missing in /proc/self/status: this benchmark needs Linux")


def measured_trainer(trainer: Any, clock: Clock) -> Any:
    """A ``transformers.Trainer`` (TRL's, Unsloth's) that tells the clock its real tokens and losses.

    With equal time its linear decay ends where the time ends; nothing else is changed.
    """

    class Measured(trainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
            mask = inputs.get("attention_mask")  # there is none where rows are packed, and then no padding either
            clock.count(int(inputs["input_ids"].numel() if mask is None else mask.sum()))
            loss = super().training_step(model, inputs, *arguments, **keywords)
            clock.losses.append(float(loss))
            return loss

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            if clock.task["minutes"] is None:
                return super().create_scheduler(num_training_steps, optimizer)
            optimizer = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: clock.remaining())
            return self.lr_scheduler

    return Measured


def trainer_settings(task: Task) -> dict[str, Any]:
    """What every ``TrainingArguments`` needs here: where, how long, no reports; no choice that changes the speed."""
    steps = 10**6 if task["minutes"] is not None else task["warm"] + task["steps"]
    return {
        "output_dir": str(Path(task["output"]) / "trainer"),
        "max_steps": steps,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }


def read_task() -> Task:
    return dict(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def read_rows(task: Task, split: str = "train") -> list[dict[str, Any]]:
    lines = (Path(task["rows"]) / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
