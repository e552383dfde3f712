"""What a person reads before anything leaves: where it would go, how much, for what, and what was taken out before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ownchat.artifacts import CLEAN, MANIFEST, Report, read_json
from ownchat.config import Config, Origins, flatten, keys
from ownchat.errors import ConfigError
from ownchat.pipeline.hosted_data import Method, Prepared
from ownchat.pipeline.hosted_service import closing, host_of
from ownchat.pipeline.lines import counted, lost

MOST_EPOCHS, MOST_BATCH, LONGEST_SUFFIX = 50, 256, 40
EPOCHS: Mapping[Method, str] = {"supervised": "train.epochs", "dpo": "train.preference_epochs"}
LOCAL_SECTIONS, LOCAL_KEYS = ("tokenizer", "model", "train"), ("data.mix", "evaluate.care")
ASKED_ANYWAY = ("model.base", "train.seed", "train.batch_tokens")


@dataclass(frozen=True)
class Request:
    """What a job would be asked for. ``epochs`` None: the service chooses. ``unused``: settings that were given and
    mean nothing there."""

    url: str
    base: str
    body: dict[str, Any]
    epochs: int | None
    unused: list[str]


def request(url: str, base: str, name: str, prepared: Prepared, config: Config, origins: Origins) -> Request:
    """Raises :class:`~ownchat.errors.ConfigError` for epochs that no service takes."""
    values, given = flatten(config), _given(config, origins)
    method, key = prepared.method, EPOCHS[prepared.method]
    chosen: dict[str, Any] = {}
    if key in given:
        epochs = values[key]
        if epochs != int(epochs) or not 1 <= epochs <= MOST_EPOCHS:
            raise ConfigError(
                f"{epochs:g} epochs", where=key, fix=f"a service takes whole ones, 1 to {MOST_EPOCHS}"
            )  # fmt: skip
        chosen["n_epochs"] = int(epochs)
    if "train.batch_tokens" in given:
        mean = max(1.0, prepared.tokens / prepared.training.examples)
        chosen["batch_size"] = min(MOST_BATCH, max(1, round(config.train.batch_tokens / mean)))
    used = {*ASKED_ANYWAY, key}
    if method == "dpo":
        used |= {"train.preference_beta"} | ({"train.preference"} if config.train.preference == "dpo" else set())
        if "train.preference_beta" in given:
            chosen["beta"] = config.train.preference_beta
    body: dict[str, Any] = {
        "model": base,
        "method": {"type": method, method: {"hyperparameters": chosen} if chosen else {}},
        "seed": config.train.seed,
    }
    if suffix := re.sub(r"[^A-Za-z0-9-]+", "-", name)[:LONGEST_SUFFIX].strip("-"):
        body["suffix"] = suffix
    ours = [
        name for name in given
        if name in LOCAL_KEYS or (name.partition(".")[0] in LOCAL_SECTIONS and name not in used)
    ]  # fmt: skip
    return Request(url, base, body, chosen.get("n_epochs"), ours)


def _given(config: Config, origins: Origins) -> list[str]:
    """What a person asked for: by a flag, or in a file where it is not the default anyway."""
    values, defaults = flatten(config), keys()
    direct = ("given (flag)", "given (--set)")
    return [
        key for key, origin in origins.items()
        if origin in direct or (origin.startswith("given") and values[key] != defaults[key])
    ]  # fmt: skip


def lines(run: Path, wanted: Request, prepared: Prepared, config: Config, price: float | None) -> Iterator[str]:
    """The page before the question; every figure is one of these files."""
    host, training, validation = host_of(wanted.url), prepared.training, prepared.validation
    yield f"What would leave this machine, and nothing has yet. It would go to {host}, which keeps it by its own terms."
    kind = "pairs of a better and a worse reply (dpo)" if prepared.method == "dpo" else "supervised"
    rows = [("service", wanted.url), ("model", f"{wanted.base}, {kind}")]
    size = (training.num_bytes + (validation.num_bytes if validation else 0)) / 1e6
    of_valid = f", {validation.examples:,} for validation" if validation else ", none for validation"
    rows.append(("examples", f"{training.examples:,} to learn from{of_valid} ({size:,.1f} MB)"))
    rows += [("not sent", f"{counted(n, 'row')}: {why}") for why, n in sorted(prepared.left_out.items())]
    rows.append(("tokens", f"about {prepared.tokens:,} to learn from ({prepared.counted})"))
    rows += [("name", f"{wanted.body['suffix']}, a part of the model's")] if "suffix" in wanted.body else []
    rows.append(("epochs", "the service chooses (--epochs sets them)" if wanted.epochs is None else str(wanted.epochs)))
    rows.append(("cost", _cost(prepared.tokens, wanted.epochs, price)))
    asked = config.evaluate.answers
    scored = f"up to {asked} conversations of the test split, asked of base and tuned model without their last reply"
    rows.append(("to score", scored if asked else "nothing: evaluate.answers is 0"))
    rows += [("cleaned", line) for line in _cleaned(run)]
    rows.append(("look at", str(training.path)))
    rows += [("", str(validation.path))] if validation else []
    rows += [("no effect", f"{', '.join(wanted.unused)}: settings of a training on this machine")] * bool(wanted.unused)
    rows += [
        ("mind" if not number else "", line) for number, line in enumerate(closing(host, datetime.now(UTC).date()))
    ]
    for name, text in rows:
        yield f"  {name:<10}{text}".rstrip()


def _cost(tokens: int, epochs: int | None, price: float | None) -> str:
    """
    >>> _cost(500_000, 2, 3.0), _cost(500_000, None, 3.0), _cost(1, 1, None)
    ('about 3.00', 'about 1.50 for each epoch', 'no price given (--price, for a million training tokens)')
    """
    if price is None:
        return "no price given (--price, for a million training tokens)"
    return f"about {tokens * price * (epochs or 1) / 1e6:,.2f}" + (" for each epoch" if epochs is None else "")


def _cleaned(run: Path) -> Iterator[str]:
    """What cleaning took out, and what it masked."""
    from ownchat.evaluate.report import private_data

    report = Report(**read_json(run / CLEAN / MANIFEST)["report"])
    yield lost(report, ("row",)).removeprefix("; ")
    masked = private_data(run / CLEAN)
    if masked is None:
        yield "private data are NOT masked: clean.private_types is empty"
        return
    types = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in masked["by_type"].items())
    yield f"private data masked in {counted(masked['places'], 'place')}" + (f": {types}" if types else "")
    yield "no detector finds everything: look at the files"
