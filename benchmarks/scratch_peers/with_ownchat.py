"""ownchat's side: the training stage on tokens that are there, with all that it does besides (validations, samples)."""

from __future__ import annotations

import time
from pathlib import Path

from clock import deadline, read_task, write_result

from ownchat.config import load_config
from ownchat.model.stage import run_model
from ownchat.monitor.events import read_lines
from ownchat.train import stage
from ownchat.train.speed import training_flops_here

LOAD_SECONDS = 5  # before the loop's own clock starts: measuring the machine, loading the model


def main() -> None:
    task = read_task()
    directory, output = Path(task["directory"]), Path(task["output"])
    shape = {name: task["size"][name] for name in ("layers", "width", "heads", "kv_heads", "inner")}
    given = {"learning_rate": task["learning_rate"], "batch_tokens": task["batch_tokens"]}
    values = {"model.base": "scratch", "model.shape": shape, "train.pretrain": given}
    values["train.minutes"] = (deadline(task) - time.time() - LOAD_SECONDS) / 60
    config, _ = load_config(values=values)
    inputs = {"tokens": directory / "tokens", "tokenizer": directory / "tokenizer"}
    run_model(config, inputs, output / "base", flops_per_second=lambda: training_flops_here(config))
    report = stage.run(config, inputs | {"base": output / "base"}, output / "5-train")
    phase = output / "5-train" / "pretrain"
    rows = [row for row in read_lines(phase / "metrics.jsonl") if "tokens" in row]
    began = next(event["time"] for event in read_lines(phase / "events.jsonl") if event["event"] == "started")
    write_result(
        task,
        [row["tokens"] for row in rows[1:]],
        [row["tokens"] / row["tokens_per_second"] for row in rows[1:]],
        first_step=began + rows[0]["seconds"],
        last_step=began + rows[-1]["seconds"],
        peak=report.details["peak_memory_bytes"],
        dtype=report.details["dtype"],
        packages=("transformers", "ownchat"),
        losses=[row["loss"] for row in rows[:3]],
        steps=len(rows),
        trained_tokens=sum(row["tokens"] for row in rows),
        best_step=report.details["best_step"],
        model=str(output / "5-train" / "model"),
    )


if __name__ == "__main__":
    main()
