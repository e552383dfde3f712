"""Checkpoints: standard directories from the first one on, written aside and renamed, safetensors only.

``step-000088/adapter`` (a PEFT adapter) or ``step-000088/model`` (a Hugging Face directory),
``state.safetensors`` (float32 masters and AdamW's moments), ``state.json`` (where the loop stood, and the SHA-256 of
every other file, so that a damaged checkpoint is seen and the one before it is used).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ownchat import artifacts
from ownchat.errors import RunError

KEPT_EPOCH_ENDS = 3


@dataclass
class State:
    """Where the loop stands between two steps. Nothing else decides what comes next."""

    step: int = 0  # optimiser steps done
    tokens: int = 0  # tokens seen, real ones
    seconds: float = 0.0  # spent so far, over all starts
    step_seconds: float = 0.0  # of these, in training steps (not validating or saving)
    best_loss: float = float("inf")
    best_step: int = 0
    validations_without_gain: int = 0
    stopped: str = ""  # why training ended early, if it did


def path_of(directory: Path, step: int) -> Path:
    return directory / f"step-{step:06d}"


def save(
    directory: Path,
    state: State,
    tensors: dict[str, Tensor],
    save_weights: Callable[[Path], None],
) -> Path:
    """Write one checkpoint; ``save_weights(path)`` puts the adapter or the model there.

    Raises :class:`~ownchat.errors.RunError` when it cannot be written (a full disk); those before stay whole.
    """
    target = path_of(directory, state.step)
    aside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        save_weights(aside)
        save_file(tensors, aside / "state.safetensors")
        hashes = {str(file.relative_to(aside)): artifacts.fingerprint(file) for file in _files(aside)}
        artifacts.write_json(aside / "state.json", {"state": asdict(state), "sha256": hashes})
        for file in _files(aside):
            _flush(file)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(aside, target)
        _flush(directory)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"the checkpoint of step {state.step} cannot be written: {error}",
            where=str(directory),
            fix="free some space; the checkpoint before is whole, and the same command goes on from it",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def latest(directory: Path) -> tuple[Path, State] | None:
    """The newest whole checkpoint; damaged ones are passed over."""
    for path in sorted(directory.glob("step-*"), reverse=True):
        if (state := read_state(path)) is not None:
            return path, state
    return None


def read_state(path: Path) -> State | None:
    """The loop's state in a checkpoint, or None when a file of it is missing or damaged."""
    try:
        content = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if all(artifacts.fingerprint(path / name) == digest for name, digest in content["sha256"].items()):
            return State(**content["state"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The optimiser's tensors of a checkpoint."""
    return load_file(path / "state.safetensors")


def clear_old(directory: Path, *, best_step: int, last_step: int, steps_per_epoch: int) -> None:
    """Keep the best, the last, the one before it (the last may be damaged), and the last three ends of an epoch."""
    paths = {int(path.name.removeprefix("step-")): path for path in directory.glob("step-*")}
    before = max((step for step in paths if step < last_step), default=last_step)
    ends = sorted(step for step in paths if step and step % steps_per_epoch == 0)[-KEPT_EPOCH_ENDS:]
    for step, path in paths.items():
        if step not in {best_step, last_step, before, *ends}:
            shutil.rmtree(path)
    for torn in directory.glob(".step-*.tmp"):
        shutil.rmtree(torn)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
