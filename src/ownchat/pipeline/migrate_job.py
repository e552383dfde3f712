"""One fine-tuning job of a service as it is kept here: a folder's name, facts, and the settings of a local run.

What a service says is never trusted: names are made of letters, digits and dashes only, numbers that are none count as
not told, and texts stand in comments of one line.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from ownchat.errors import printable

TRAINING, VALIDATION, RESULT = "training", "validation", "result"
OPENAI = "api.openai.com"
LAST_NEW_JOBS = date(2027, 1, 6)
_CLOSING = (  # of models that were tuned, with all that was tuned from them; the longer names first
    ("gpt-3.5-turbo", date(2026, 10, 23)), ("gpt-4.1-nano", date(2026, 10, 23)), ("o4-mini", date(2026, 10, 23)),
    ("gpt-4o-mini", date(2027, 1, 14)), ("gpt-4o", date(2027, 1, 14)), ("gpt-4.1-mini", date(2027, 1, 14)),
    ("gpt-4.1", date(2027, 1, 14)),
)  # fmt: skip
_LONGEST_WORD = 40
_SAMPLE = 200  # examples that the length of one is taken from


@dataclass(frozen=True)
class Job:
    """What is known of a job; ``None`` and empty: not told, or not in a form that can be used.

    ``files``: what it had and made, as pairs of a kind and the service's id.
    """

    id: str
    folder: str
    model: str
    status: str
    created: int | None
    trained_tokens: int | None
    fine_tuned_model: str
    method: str
    seed: int | None
    hyperparameters: Mapping[str, Any]
    files: tuple[tuple[str, str], ...]

    @property
    def day(self) -> str:
        """When it was made."""
        return _day(self.created)

    def closes(self, host: str) -> date | None:
        """When its model ends, where the service is OpenAI and the day is known.

        >>> job_of({"id": "ftjob-1", "model": "gpt-4o-mini-2024-07-18"}).closes("api.openai.com")
        datetime.date(2027, 1, 14)
        """
        base = self.model.removeprefix("ft:")
        days = (day for name, day in _CLOSING if base.partition(":")[0].startswith(name))
        return next(days, None) if host == OPENAI else None


def job_of(given: Mapping[str, Any]) -> Job:
    """The job that a service describes; ``given["id"]`` is a text.

    >>> job_of({"id": "../../etc", "user_provided_suffix": "../My FAQ!", "created_at": 0}).folder
    '1970-01-01-my-faq-74ccf3c5'
    """
    id, made = given["id"], given.get("fine_tuned_model")
    parts = made.split(":") if isinstance(made, str) else []
    suffix = given.get("user_provided_suffix") or (parts[3] if len(parts) > 4 else None)
    created = _whole(given.get("created_at"), least=0, most=10**11)
    model = _line(given.get("model"))
    words = _word(suffix) or _word(model) or "job"
    digest = hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    method: Any = given.get("method")
    kind = method.get("type") if isinstance(method, dict) else None
    kind = "supervised" if kind is None else _line(kind)
    own: Any = method.get(kind) if isinstance(method, dict) else None
    told = [given.get("hyperparameters"), own.get("hyperparameters") if isinstance(own, dict) else None]
    results = given.get("result_files")
    training, validation = given.get("training_file"), given.get("validation_file")
    files = [(TRAINING, training), (VALIDATION, None if validation == training else validation)]
    files += [(RESULT, result) for result in (results if isinstance(results, list) else [])]
    return Job(
        id=id, folder=f"{_day(created)}-{words}-{digest}", model=model, status=_line(given.get("status")),
        created=created, trained_tokens=_whole(given.get("trained_tokens"), least=0, most=10**15),
        fine_tuned_model=_line(made), method=kind, seed=_whole(given.get("seed"), least=0, most=2**63 - 1),
        hyperparameters={name: value for values in told if isinstance(values, dict) for name, value in values.items()},
        files=tuple(dict.fromkeys((kind, file) for kind, file in files if isinstance(file, str) and file)),
    )  # fmt: skip


def settings_of(job: Job, data: Path, command: str, mean_tokens: float) -> str:
    """The YAML of a local run that does what the job did, as far as that has a meaning here.

    ``data``: the folder with its files, of which a validation file is held out; ``mean_tokens``: of an example, about.
    """
    prefix, given = ("preference_" if job.method == "dpo" else ""), job.hyperparameters
    train: list[str] = []
    if job.method == "dpo":
        train.append("  preference: dpo")
    epochs = _whole(given.get("n_epochs"), least=1, most=1000)
    if epochs is not None:
        train.append(f"  {prefix}epochs: {epochs}  # n_epochs")
    size = _whole(given.get("batch_size"), least=1, most=100_000)
    if size is not None:
        tokens = max(1, round(size * mean_tokens))
        train.append(f"  batch_tokens: {tokens}  # batch_size {size}; an example has about {mean_tokens:.0f} tokens")
    beta = given.get("beta")
    if job.method == "dpo" and isinstance(beta, int | float) and not isinstance(beta, bool) and 0 < beta <= 2:
        train.append(f"  preference_beta: {_number(beta)}  # beta")
    if job.seed is not None:
        train.append(f"  seed: {job.seed}")
    rate = given.get("learning_rate_multiplier")
    if isinstance(rate, int | float) and not isinstance(rate, bool):
        train.append(f"  # learning_rate_multiplier was {rate:g}: of a rate that is not told, so none is set here")
    lines = [
        f"# {_line(job.id)} of {job.day}: {job.model}, {job.method}, {job.status}",
        f"# {command}",
        "# What is not set is ownchat's own: the starter as base (--base names another), private data masked,",
        "# copies and noise taken out. clean.private_types: [] leaves private data as they are.",
    ]
    if (data / f"{VALIDATION}.jsonl").is_file():
        lines += ["data:", f"  map: {{valid: {VALIDATION}.jsonl}}  # held out, as it was there"]
    lines += ["train:", *train] if any(not line.lstrip().startswith("#") for line in train) else train
    text = "\n".join(lines) + "\n"
    assert isinstance(yaml.safe_load(text), dict | None)
    return text


def sample_texts(path: Path) -> list[str]:
    """The texts of a file's first examples; what is no JSON is left to the import to tell."""
    found = []
    with open(path, encoding="utf-8-sig", errors="replace") as lines:
        for line in islice(iter(lambda: lines.readline(1 << 20), ""), _SAMPLE):
            try:
                found.append(" ".join(_texts(json.loads(line))))
            except (ValueError, RecursionError):
                continue
    return [text for text in found if text]


def _texts(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, str):
        if key in ("content", "prompt", "completion", "text", "arguments"):
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, name)


def _whole(value: Any, *, least: int, most: int) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    return int(value) if good else None


def _number(value: float) -> str:
    """A decimal number: YAML takes 5e-05 for a text."""
    return f"{value:.10f}".rstrip("0").rstrip(".") or "0"


def _day(seconds: int | None) -> str:
    return "no-date" if seconds is None else time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text[:200].lower())
    return "-".join(part for part in kept.split("-") if part)[:_LONGEST_WORD].strip("-")


def _line(value: Any) -> str:
    """A service's text on one line, without what steers a terminal."""
    return " ".join(printable(value).split())[:120] if isinstance(value, str) else ""
