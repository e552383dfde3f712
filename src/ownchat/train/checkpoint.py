"""Checkpoints: standard directories from the first one on, written aside and renamed, safetensors only.

``step-000088/adapter`` (a PEFT adapter) or ``step-000088/model`` (a Hugging Face directory),
``state.safetensors`` (float32 masters and AdamW's moments), ``state.json`` (where the loop stood, and the SHA-256 of
every other file and of itself, so that a damaged checkpoint is seen and the one before it is used).

Of several processes each writes ``state-00001-of-00004.safetensors``: its rows of every tensor, and in the file's
header which rows they are. Any number of processes can go on from that: each reads the rows it needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ownchat import artifacts
from ownchat.errors import RunError
from ownchat.train.distributed import ALONE, World

KEPT_EPOCH_ENDS = KEPT_LAST = 3
Rows = tuple[int, int]  # the first, and the one behind the last


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
    losses: list[float] = field(default_factory=list)  # of the last validations, twice train.patience of them
    validated: bool = True  # false: a signal came before the validation that follows this step was done
    stopped: str = ""  # why training ended early, if it did
    validations: int = 0  # done, that of the base included
    total_steps: int = 0  # decided on the way (see ownchat.train.schedule); 0: as planned
    decay_from: int = 0  # where the rate began to fall before its time, if it did


def path_of(directory: Path, step: int) -> Path:
    return directory / f"step-{step:06d}"


def save(
    directory: Path,
    state: State,
    tensors: dict[str, Tensor],
    save_weights: Callable[[Path], None],
    *,
    world: World = ALONE,
    rows: dict[str, Rows] | None = None,
) -> Path:
    """Write one checkpoint; ``save_weights(path)`` puts the adapter or the model there, in all processes together.

    ``tensors`` are this process's; ``rows`` says of those that are spread over processes which rows it has.

    Raises :class:`~ownchat.errors.RunError` when it cannot be written (a full disk); those before stay whole.
    """
    target = path_of(directory, state.step)
    aside = target.with_name(f".{target.name}.tmp")
    try:
        world.from_first(lambda: _make_anew(aside))
        aside.mkdir(parents=True, exist_ok=True)  # a shared disk may show it late
        save_weights(aside)
        mine = aside / ("state.safetensors" if world.alone else _shard(world.rank, world.size))
        save_file(tensors, mine, metadata={"rows": json.dumps(rows)} if rows else None)
        hashes = {}
        if not world.first:
            _flush(mine)
            hashes = {mine.name: artifacts.fingerprint(mine)}
        given = world.to_first(hashes)
        world.from_first(lambda: _commit(aside, target, state, given))
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"the checkpoint of step {state.step} cannot be written: {error}",
            where=str(directory),
            fix="free some space; the checkpoint before is whole, and the same command goes on from it",
        ) from error
    finally:
        if world.first:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def _make_anew(aside: Path) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)


def _commit(aside: Path, target: Path, state: State, given: list[dict[str, str]]) -> None:
    """``given``: hashes of the other processes' files, which are on disk."""
    hashes = {name: digest for each in given for name, digest in each.items()}
    own = [file for file in _files(aside) if str(file.relative_to(aside)) not in hashes]
    hashes |= {str(file.relative_to(aside)): artifacts.fingerprint(file) for file in own}
    content = {"state": asdict(state), "sha256": hashes}
    artifacts.write_json(aside / "state.json", content | {"seal": _seal(content)})
    for file in [*own, aside / "state.json"]:
        _flush(file)
    _take_away(target)
    os.replace(aside, target)
    _flush(target.parent)


def _shard(rank: int, size: int) -> str:
    return f"state-{rank + 1:05d}-of-{size:05d}.safetensors"


def latest(
    directory: Path, passed_over: Callable[[Path, str], None] = lambda path, why: None
) -> tuple[Path, State] | None:
    """The newest whole checkpoint; ``passed_over(path, why)`` is told of every newer one that is damaged.

    Whole means that the best one so far is whole, too: the result may be made of it. Where it is not, training goes
    on from before it, and makes it again.
    """
    for path in sorted(directory.glob("step-*"), reverse=True):
        found = read_state(path)
        if isinstance(found, State) and found.best_step not in (0, found.step):
            best = path_of(directory, found.best_step)
            if isinstance(problem := read_state(best), str):
                found = f"the best one, {best.name}, is damaged ({problem})"
        if isinstance(found, State):
            return path, found
        passed_over(path, found)
    return None


def latest_in(world: World, directory: Path, passed_over: Callable[[Path, str], None]) -> tuple[Path, State] | None:
    """:func:`latest` as the first process finds it: hashing everything once is enough."""
    if world.alone:
        return latest(directory, passed_over)

    def look() -> list[Any] | None:
        found = latest(directory, passed_over)
        return None if found is None else [str(found[0]), asdict(found[1])]

    found = world.from_first(look)
    if found is None:
        return None
    world.must_see(Path(found[0]) / "state.json")
    return Path(found[0]), State(**found[1])


def read_state(path: Path) -> State | str:
    """The loop's state in a checkpoint, or what is wrong with the files there."""
    try:
        text = (path / "state.json").read_text(encoding="utf-8")
        content = json.loads(text)
        # The text, too: another last digit can be the same number.
        if text != artifacts.as_json(content) or content.pop("seal", None) != _seal(content):
            return "state.json is damaged"
        for name, digest in content["sha256"].items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if artifacts.fingerprint(path / name) != digest:
                return f"{name} is damaged"
        return State(**content["state"])
    except FileNotFoundError:
        return "state.json is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"state.json cannot be read: {error}"


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Saved:
    """The optimiser's tensors of a checkpoint, of one process or of many; read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self._parts: dict[str, list[tuple[Rows | None, Any]]] = {}
        for file in sorted(path.glob("state*.safetensors")):
            opened = safe_open(file, framework="pt")
            rows = json.loads((opened.metadata() or {}).get("rows", "{}"))
            for name in opened.keys():  # noqa: SIM118 (not a dictionary)
                part = (rows[name][0], rows[name][1]) if name in rows else None
                self._parts.setdefault(name, []).append((part, opened))

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def read(self, name: str, rows: Rows | None = None) -> Tensor:
        """A tensor, or some rows of it, whichever processes wrote them."""
        parts = self._parts[name]
        if parts[0][0] is None:  # whole in every file
            opened = parts[0][1]
            return opened.get_tensor(name) if rows is None else opened.get_slice(name)[rows[0] : rows[1]]
        pieces = []
        for (start, stop), opened in parts:  # type: ignore[misc] # spread, so each has its rows
            first, last = (start, stop) if rows is None else (max(start, rows[0]), min(stop, rows[1]))
            if first < last:
                pieces.append(opened.get_slice(name)[first - start : last - start])
        if pieces:
            return torch.cat(pieces)
        return parts[0][1].get_slice(name)[0:0]


def clear_old(directory: Path, *, best_step: int, last_step: int, steps_per_epoch: int) -> None:
    """Keep the best, the last three (the newest may be damaged), and the last three ends of an epoch."""
    paths = {int(path.name.removeprefix("step-")): path for path in directory.glob("step-*")}
    last = sorted(step for step in paths if step <= last_step)[-KEPT_LAST:]
    ends = sorted(step for step in paths if step and step % steps_per_epoch == 0)[-KEPT_EPOCH_ENDS:]
    for step, path in paths.items():
        if step not in {best_step, *last, *ends}:
            _take_away(path)
    for torn in directory.glob(".step-*.tmp"):
        shutil.rmtree(torn)


def _take_away(path: Path) -> None:
    """All of a checkpoint at once: a server may have it, and must find it whole or not at all."""
    hidden = path.with_name(f".{path.name}.old.tmp")
    shutil.rmtree(hidden, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)  # what stays is removed after the next one is saved


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
