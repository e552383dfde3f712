"""The runs of this machine: what they are, what they reached, what they take, and how to be rid of one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ownchat import artifacts
from ownchat.artifacts import REPORT, TRAIN, read_json
from ownchat.errors import RunError


@dataclass(frozen=True)
class Run:
    """One line of ``ownchat runs``."""

    name: str
    status: str  # finished | training, step n | interrupted, step n | not trained
    result: str  # held-out loss, base -> tuned
    num_bytes: int
    modified: float  # Unix seconds


def describe(run: Path) -> Run:
    """What is known about a run, from its directory alone."""
    report = run / REPORT / "report.json"
    result = ""
    if report.is_file():
        held_out = read_json(report)["held_out"]
        base, tuned = (held_out[who]["loss"]["value"] for who in ("base", "tuned"))
        result = f"held-out loss {base:.3f} -> {tuned:.3f} ({(tuned - base) / base:+.0%})"
    size = sum(file.lstat().st_size for file in run.rglob("*") if file.is_file())
    return Run(run.name, status(run), result, size, run.stat().st_mtime)


def status(run: Path) -> str:
    """How far a run is; a process that works on it holds its lock."""
    if artifacts.finished_model(run) is not None:
        return "finished"
    beats = list((run / TRAIN).glob("*/heartbeat"))
    if not beats:
        return "not trained"
    working = "training" if artifacts.is_locked(run) else "interrupted"
    return f"{working}, step {read_json(beats[0])['step']}"


def delete(name: str) -> int:
    """Remove a run for good; returns the bytes freed. Raises :class:`~ownchat.errors.RunError` while it is in use."""
    run = artifacts.existing_run(name)
    if not ((run / "config.yaml").is_file() or (run / artifacts.IMPORT).is_dir()):
        raise RunError("this is not a run of ownchat", where=str(run), fix="remove it yourself if you mean it")
    size = describe(run).num_bytes
    with artifacts.locked(run):
        shutil.rmtree(run)
    return size
