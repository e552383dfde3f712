"""Learn from rated answers through OpenAI's API: ask and store, rate, list what was rated, train (DPO), ask again.

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=sk-own-... MODEL=starter
    python recipes/openai/preferences.py questions.txt

Every question (a line) is answered twice. The rating is a stand-in for people's: of two answers the shorter one is
better. Needs the official SDK and nothing else. Without OPENAI_BASE_URL, and with OpenAI's key and model, it runs
there: only these three differ.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from openai import OpenAI

LEAST_PAIRS = 10
LISTED_WITHIN = 60.0  # seconds until the service lists what it stored
OVER = ("succeeded", "failed", "cancelled")


def main() -> None:
    arguments = parse()
    questions = [line for line in arguments.questions.read_text(encoding="utf-8").splitlines() if line.strip()]
    client, model, round_ = OpenAI(), os.environ.get("MODEL", "starter"), secrets.token_hex(6)
    rated = 0
    for number, question in enumerate(questions):
        rated += rate(client, model, question, {"round": round_, "question": str(number)}, arguments.max_tokens)
    print(f"{2 * len(questions)} answers stored, {rated} rated")
    better, worse = (stored(client, round_, rating, rated // 2) for rating in ("up", "down"))
    pairs = [pair(client, better[number], worse[number]) for number in sorted(better.keys() & worse.keys(), key=int)]
    if len(pairs) < LEAST_PAIRS:
        sys.exit(f"{len(pairs)} pairs; at least {LEAST_PAIRS} are needed: give more questions")
    content = io.BytesIO(b"".join(json.dumps(row).encode() + b"\n" for row in pairs))
    file = client.files.create(file=("rated.jsonl", content), purpose="fine-tune")
    print(f"{len(pairs)} pairs uploaded: {file.id}")
    job = client.fine_tuning.jobs.create(
        model=model, training_file=file.id, suffix=arguments.suffix, seed=arguments.seed,
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": arguments.beta}}},
    )  # fmt: skip
    while job.status not in OVER:
        time.sleep(1)
        job = client.fine_tuning.jobs.retrieve(job.id)
    for event in reversed(list(client.fine_tuning.jobs.list_events(job.id, limit=100))):
        print(f"{event.level:<5} {event.message}")
    if job.status != "succeeded":
        sys.exit(f"{job.id} {job.status}: {job.error.message if job.error else ''}")
    answer = ask(client, str(job.fine_tuned_model), questions[0], arguments.max_tokens)
    print(f"{job.fine_tuned_model} answers: {answer.choices[0].message.content!r}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path, help="a question a line")
    parser.add_argument("--suffix", default="rated", help="a part of the model's name")
    parser.add_argument("--beta", type=float, default=0.1, help="how near to the model before it stays")
    parser.add_argument("--max-tokens", type=int, default=40, help="of an answer")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def ask(client: OpenAI, model: str, question: str, max_tokens: int, **more: Any) -> Any:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=max_tokens, **more
    )


def rate(client: OpenAI, model: str, question: str, marks: dict[str, str], max_tokens: int) -> int:
    """Store two answers, and rate both where one is better; how many were rated."""
    both = [
        ask(client, model, question, max_tokens, temperature=1, seed=seed, store=True, metadata=marks)
        for seed in (1, 2)
    ]  # fmt: skip
    texts = [str(answer.choices[0].message.content or "").strip() for answer in both]
    if not all(texts) or len(texts[0]) == len(texts[1]):
        return 0
    for answer, text in zip(both, texts, strict=True):
        rating = "up" if text == min(texts, key=len) else "down"
        client.chat.completions.update(answer.id, metadata=marks | {"rating": rating})
    return 2


def stored(client: OpenAI, round_: str, rating: str, wanted: int) -> dict[str, Any]:
    """By the number of its question: the answer that was rated so."""
    end = time.monotonic() + LISTED_WITHIN
    while True:
        listed = client.chat.completions.list(metadata={"round": round_, "rating": rating}, limit=100)
        found = {answer.metadata["question"]: answer for answer in listed}
        if len(found) >= wanted or time.monotonic() > end:
            return found
        time.sleep(2)


def pair(client: OpenAI, better: Any, worse: Any) -> dict[str, Any]:
    """A line to learn from: what was asked, and both answers."""
    messages = client.chat.completions.messages.list(better.id)
    asked = [{"role": message.role, "content": message.content} for message in messages]

    def said(answer: Any) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": answer.choices[0].message.content}]

    return {"input": {"messages": asked}, "preferred_output": said(better), "non_preferred_output": said(worse)}


if __name__ == "__main__":
    main()
