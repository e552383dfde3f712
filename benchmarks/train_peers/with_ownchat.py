"""ownchat's side: what ``ownchat train`` runs after cleaning, in this process; figures from the run's own files."""

from __future__ import annotations

import time
from pathlib import Path

from clock import Task, deadline, read_rows, read_task, write_result

from ownchat.config import load_config
from ownchat.model.load import load_tokenizer
from ownchat.monitor.events import read_lines
from ownchat.tokenizer.render import render, render_document
from ownchat.tokenizer.store import TokenStore, TokenWriter
from ownchat.train import stage
from ownchat.train.schedule import steps_in

LOAD_SECONDS = 10  # before the loop's own clock starts: measuring the machine, loading the model
BLOCK_TOKENS = 2048


def main() -> None:
    task = read_task()
    tokens, base = Path(task["output"]) / "tokens", Path(task["base"])
    write_stores(task, tokens)
    store = TokenStore(tokens / "train")
    values = {"train.method": task["method"], "train.block_tokens": BLOCK_TOKENS}
    config = load_config(values=values)[0]
    if task["minutes"] is not None:
        minutes = (deadline(task) - time.time() - LOAD_SECONDS) / 60
        config = load_config(values=values | {"train.minutes": minutes, "train.epochs": 100.0})[0]
    else:
        steps = task["warm"] + task["steps"]
        per_epoch, _ = steps_in(store.lengths, config.train.batch_tokens, 1.0)
        patience = {"train.patience": 1000}  # steps are counted here, not the best model
        config = load_config(values=values | patience | {"train.epochs": steps / per_epoch})[0]
    output = Path(task["output"]) / "5-train"
    report = stage.run(config, {"tokens": tokens, "tokenizer": base, "base": base}, output)

    phase = output / "sft"
    rows = [row for row in read_lines(phase / "metrics.jsonl") if "tokens" in row]
    began = next(event["time"] for event in read_lines(phase / "events.jsonl") if event["event"] == "started")
    check_tokens([row["tokens"] for row in rows], store)
    measured = rows[task["warm"] :]
    write_result(
        task,
        [row["tokens"] for row in measured],
        [row["tokens"] / row["tokens_per_second"] for row in measured],
        first_step=began + rows[0]["seconds"],
        last_step=began + rows[-1]["seconds"],
        peak=report.details["peak_memory_bytes"],
        dtype=report.details["dtype"],
        packages=("transformers", "peft", "ownchat"),
        losses=[row["loss"] for row in rows[:3]],
        steps=len(rows),
        model=str(output / "model"),
        stopped=report.details["stopped"],
    )


def write_stores(task: Task, directory: Path) -> None:
    """Stage 4-tokens for rows that are no records: rendered here, as the peers tokenise in their processes."""
    tokenizer = load_tokenizer(Path(task["base"]))
    for split in ("train", "valid"):
        with TokenWriter(directory / split, len(tokenizer)) as writer:
            for number, row in enumerate(read_rows(task, split)):
                if "text" in row:
                    rendered, kind = render_document(tokenizer, row["text"]), "document"
                else:
                    messages = row["messages"] if "messages" in row else row["prompt"] + row["completion"]
                    rendered, kind = render(tokenizer, messages), "conversation"
                writer.add(
                    rendered.ids, rendered.weights, id=str(number), record=str(number), piece=0, group=None, kind=kind
                )


def check_tokens(tokens: list[int], store: TokenStore) -> None:
    """The tokens that the loop reports are the rows' own, none twice: whole epochs add up to the store."""
    per_epoch, _ = steps_in(store.lengths, load_config()[0].train.batch_tokens, 1.0)
    for first in range(0, len(tokens) - per_epoch + 1, per_epoch):
        counted = sum(tokens[first : first + per_epoch])
        if counted != store.num_tokens:
            raise AssertionError(f"an epoch of {store.num_tokens} tokens was reported as {counted}")


if __name__ == "__main__":
    main()
