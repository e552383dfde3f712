"""Stage 4-model: a model from nothing, untrained, as a plain Hugging Face directory with ``dial.json``."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ownchat import artifacts
from ownchat.artifacts import Report
from ownchat.config import Config
from ownchat.errors import ConfigError, DataError
from ownchat.model import create
from ownchat.model.create import Size
from ownchat.model.dial import Text, choose
from ownchat.model.out_of_memory import Guard
from ownchat.model.shape import words
from ownchat.tokenizer.mix import mixes
from ownchat.tokenizer.packing import epoch_tokens
from ownchat.tokenizer.stage import load_tokenizer
from ownchat.tokenizer.store import TokenStore
from ownchat.tokenizer.tokens import PRETRAIN

SECTIONS = ("data", "model", "train")
NAME = "dial.json"
LONGEST_CONTEXT = 2048  # of a tokenizer that names none, or that was made for another model
TRAINING_BYTES = 16  # for each weight: itself, its gradient and two moments, float32
DISK_BYTES = 40  # for each weight: this model, two checkpoints (weights and moments), the result
USABLE = 0.85  # of the memory that is there
LIBRARIES = 450_000_000  # bytes: torch and transformers


def run_model(
    config: Config,
    inputs: dict[str, Path],
    output: Path,
    *,
    flops_per_second: Callable[[], float],
    weights: bool = True,
) -> Report:
    """``inputs``: ``tokens`` (4-tokens), ``tokenizer`` (3-tokenizer). ``flops_per_second``: what training does here,
    asked for only when a time decides something.

    A finished stage is not made again, also where the machine is faster today. ``weights``: without them there are
    only ``config.json`` and ``dial.json``, which is what planning needs; a later training makes the model.

    Raises :class:`~ownchat.errors.ConfigError` for a size that cannot be made or cannot fit, before any weight is.
    """
    key = artifacts.stage_key(config, SECTIONS, inputs)
    if report := artifacts.completed(output, key):
        return report
    clock = time.monotonic()
    tokenizer = load_tokenizer(inputs["tokenizer"])
    known = min(int(tokenizer.model_max_length), max(config.tokenizer.max_tokens or 0, LONGEST_CONTEXT))
    unique, later = _tokens(config, inputs["tokens"])
    if not unique:
        raise DataError(
            "there is no text for a model from nothing",
            where=str(inputs["tokens"]),
            fix="give documents or conversations; preferences alone teach no language",
        )
    fits = most_weights(_available()) if weights else math.inf
    dial = choose(config, Text(unique, len(tokenizer), known, later, fits), flops_per_second)
    if weights:
        check_room(dial.size, output)
    artifacts.start_afresh(output)
    if weights:
        create.save(create.create(dial.size, tokenizer, seed=config.train.seed), tokenizer, output)
    else:
        create.config_of(dial.size, tokenizer).save_pretrained(output)
    details = dial.as_json()
    artifacts.write_json(output / NAME, details)
    counts = {"parameters": dial.size.parameters}
    report = Report("model", output, counts, details, time.monotonic() - clock)
    return artifacts.commit(key if weights else f"{key} without weights", config, SECTIONS, report)


def _tokens(config: Config, directory: Path) -> tuple[int, int]:
    """Of one pass of pre-training, and of all passes of the fine-tuning after it, as ``data.mix`` has them."""
    stores = [TokenStore(directory / name) for name in (f"{PRETRAIN}/train", "train", "prefer/train")
              if (directory / name).is_dir()]  # fmt: skip
    found = zip(stores, mixes(config.data.mix, stores), strict=True)
    one_pass, *after = (epoch_tokens(store.item_lengths, mix) if len(store) else 0.0 for store, mix in found)
    return round(one_pass), round(after[0] * config.train.epochs) if after else 0


def check_room(size: Size, output: Path, *, memory: int | None = None, disk: int | None = None) -> None:
    """Raise :class:`~ownchat.errors.ConfigError` for a model whose weights, gradients and moments do not fit.

    ``memory``, ``disk``: bytes that are there; none: looked up. Activations come on top: training makes its blocks as
    small as they have to be.
    """
    memory = _available() if memory is None else memory
    place = output
    while not place.exists():
        place = place.parent
    disk = shutil.disk_usage(place).free if disk is None else disk
    for what, there, bytes_each, limit in (
        ("memory", memory, TRAINING_BYTES, most_weights(memory)), ("disk", disk, DISK_BYTES, disk / DISK_BYTES),
    ):  # fmt: skip
        if size.parameters > limit:
            fits = f"--size {_rounded(limit)} fits here; or " if limit >= 1e5 else ""
            raise ConfigError(
                f"{words(size.parameters)} weights take {bytes_each * size.parameters / 1e9:,.1f} GB of {what} in "
                f"training, and {there / 1e9:,.1f} GB are free",
                where="model.size",
                fix=f"{fits}see what another machine would take: ownchat plan ... --device h100 --count 8",
            )


def most_weights(memory: int) -> float:
    """How many can be trained in so many bytes."""
    return (USABLE * memory - LIBRARIES) / TRAINING_BYTES


def _available() -> int:
    """Bytes of memory for training: of the GPUs of all processes, else of this machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0]) * int(os.environ.get("WORLD_SIZE", "1"))
    free = Guard().available()
    return 10**15 if free is None else free


def _rounded(weights: float) -> str:
    """Down to two digits, as it can be given to ``--size``.

    >>> _rounded(1_234_567_890), _rounded(356_000_000), _rounded(123_456)
    ('1.2B', '350M', '120k')
    """
    size = 10 ** (len(str(int(weights))) - 2)
    return words(int(weights) // size * size)
