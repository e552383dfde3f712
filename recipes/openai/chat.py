"""Fine-tune a chat model through OpenAI's API: check the file, upload it, train, follow, read the losses, ask.

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=sk-own-... MODEL=starter
    python recipes/openai/chat.py training.jsonl --ask "Where is my order?"

Needs the official SDK and nothing else. Without OPENAI_BASE_URL, and with OpenAI's key and model, it runs there: only
these three differ. X_TRAIN may hold ownchat's own settings: X_TRAIN='{"rank": 8}'.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import csv
import io
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from openai import NotFoundError, OpenAI

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
LEAST_EXAMPLES = 10
OVER = ("succeeded", "failed", "cancelled")


def main() -> None:
    arguments = parse()
    counted = check(arguments.training)
    print(f"{arguments.training}: {counted['examples']} examples, {counted['turns']} turns to learn")
    client, model = OpenAI(), os.environ.get("MODEL", "starter")
    print(f"to {client.base_url}", flush=True)
    try:
        client.models.retrieve(model)  # before the file: a service without this model is the wrong one
    except NotFoundError:
        sys.exit(f"{client.base_url} has no model {model}: set OPENAI_BASE_URL and MODEL; nothing was sent")
    with open(arguments.training, "rb") as handle:
        file = client.files.create(file=handle, purpose="fine-tune")
    print(f"uploaded: {file.id}")
    extra = {"x_train": json.loads(os.environ["X_TRAIN"])} if "X_TRAIN" in os.environ else None
    job = client.fine_tuning.jobs.create(
        model=model, training_file=file.id, suffix=arguments.suffix, seed=arguments.seed, extra_body=extra,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": arguments.epochs or "auto"}}},
    )  # fmt: skip
    job = follow(client, job.id)
    for result in job.result_files:
        table = losses(client.files.content(result).read())
        first, last = (float(table[place]["train_loss"]) for place in (0, -1))
        print(f"training loss: {first:.3f} at step {table[0]['step']}, {last:.3f} at step {table[-1]['step']}")
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
        print(f"checkpoint: {checkpoint.fine_tuned_model_checkpoint}")
    for name in (model, str(job.fine_tuned_model)):
        answer = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": arguments.ask}], max_tokens=60, temperature=0
        )
        print(f"{name} answers: {answer.choices[0].message.content!r}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", type=Path, help="JSON Lines, each with messages")
    parser.add_argument("--ask", default="Hello!", help="a question for the model before and after")
    parser.add_argument("--suffix", default="recipe", help="a part of the model's name")
    parser.add_argument("--epochs", type=int, help="none: the service's own number")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def check(path: Path) -> Counter[str]:
    """Count examples and trained turns; ends the program with all that is wrong, by line."""
    counted, wrong = Counter[str](), []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        counted["examples"] += 1
        try:
            messages = json.loads(line)["messages"]
            roles = [str(message["role"]) for message in messages]
        except (ValueError, KeyError, TypeError):
            wrong.append(f'line {number}: not {{"messages": [{{"role": ..., "content": ...}}]}}')
            continue
        learned = [message for message in messages if message["role"] == "assistant" and message.get("weight", 1)]
        counted["turns"] += len(learned)
        if unknown := sorted(set(roles) - set(ROLES)):
            wrong.append(f"line {number}: no such role: {', '.join(unknown)}")
        if not learned:
            wrong.append(f"line {number}: no answer of the assistant to learn")
    if counted["examples"] < LEAST_EXAMPLES:
        wrong.append(f"{counted['examples']} examples; at least {LEAST_EXAMPLES} are needed")
    if wrong:
        sys.exit("\n".join(f"{path}: {text}" for text in wrong[:20]))
    return counted


def follow(client: OpenAI, id: str) -> Any:
    """Print what happens; the job, once it has succeeded."""
    seen: set[str] = set()
    while True:
        job = client.fine_tuning.jobs.retrieve(id)  # before its events: then the last ones are among them
        for event in reversed(list(client.fine_tuning.jobs.list_events(id, limit=100))):
            if event.id not in seen:
                seen.add(event.id)
                print(f"{event.level:<5} {event.message}", flush=True)
        if job.status in OVER:
            break
        time.sleep(1)
    if job.status != "succeeded":
        sys.exit(f"{id} {job.status}: {job.error.message if job.error else ''}")
    return job


def losses(content: bytes) -> list[dict[str, str]]:
    """The rows of a result file, which OpenAI sends as base64 of CSV and others as CSV."""
    if not content.startswith(b"step,"):
        try:
            content = base64.b64decode(content, validate=True)
        except binascii.Error:
            sys.exit("the result file is no CSV")
    return list(csv.DictReader(io.StringIO(content.decode())))


if __name__ == "__main__":
    main()
