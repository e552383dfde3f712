"""A job's files before it may run: taken into its folder, looked at line by line, and what it will be run with."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from ownchat.serve import job_settings
from ownchat.serve.catalogue import STARTER, Entry
from ownchat.serve.errors import ApiError
from ownchat.serve.file_store import FileStore
from ownchat.serve.job_store import Event
from ownchat.serve.protocol.fine_tuning import Train
from ownchat.serve.training_file import LEAST_EXAMPLES, Findings, validate

TRAINING, VALIDATION = "training.jsonl", "validation.jsonl"
LEAST_VALIDATION = 2  # examples: one to choose the checkpoint by, one for the report
HELD_OUT = "The training file is learned whole, and of the validation file nothing: checkpoints are chosen on it"


class Failed(Exception):
    """Why a job cannot go on: OpenAI's code, what to tell, and which of its parameters it is about."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "param": param}


def prepare(
    row: Row[Any], entry: Entry, files: FileStore, folder: Path, *, threads: int
) -> tuple[dict[str, Any], list[Event]]:
    """What the job is run with, and what there is to tell. ``entry``: of its model; ``folder``: for its files.

    Raises :class:`Failed` for files that cannot be learned from.
    """
    if entry.located is None:
        raise Failed("model_not_available", f"The model {row.model} is behind another server", "model")
    model, given = entry.located.model, Train(**row.train)
    special = job_settings.special_tokens(model)
    found = _look_at(row, row.training_file, files, folder / TRAINING, "training", special)
    events = _notes(found, "training")
    if row.validation_file is not None:
        checked = _look_at(row, row.validation_file, files, folder / VALIDATION, "validation", special)
        events += [*_notes(checked, "validation"), Event("validation/held_out", HELD_OUT)]
    tokens = job_settings.mean_tokens(model, found.sample)
    command = {
        "arguments": job_settings.arguments(
            row.hyperparameters,
            row.method,
            given,
            base=STARTER if entry.id == STARTER else str(model),
            seed=row.seed,
            tokens=tokens,
            threads=threads,
            validation=None if row.validation_file is None else VALIDATION,
        ),
        "resolved": job_settings.resolved(row.hyperparameters, row.method, tokens),
        "base": _root(entry),
    }
    return command, events


def _look_at(row: Row[Any], file: str, files: FileStore, path: Path, kind: str, special: Sequence[str]) -> Findings:
    """Take a file into the job's folder, so that it may be deleted, and look at every line."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.is_file():
        try:
            files.get(row.owner, file)
            _link(files.path(file), path)
        except (ApiError, FileNotFoundError) as error:  # others are the machine's, and tried again
            raise Failed(f"invalid_{kind}_file", f"The {kind} file {file} is not there", f"{kind}_file") from error
    least = LEAST_EXAMPLES if kind == "training" else LEAST_VALIDATION
    with open(path, "rb") as stream:
        found = validate(stream, row.method, special_tokens=special, name=kind.capitalize(), least=least)
    if found.problem is not None:
        raise Failed(found.code or f"invalid_{kind}_file", found.problem, f"{kind}_file")
    return found


def _notes(found: Findings, kind: str) -> list[Event]:
    """What is no reason to refuse a file, and must not pass in silence."""
    count = {"examples": found.examples}
    events = [Event(f"{kind}/examples", f"The {kind} file has {found.examples} examples", data=count)]
    if found.copies:
        text = f"{found.copies} example(s) of the {kind} file stand there twice; the first is line {found.first_copy}"
        events.append(Event(f"{kind}/copies", text, "warn", data={"copies": found.copies}))
    for key, lines in found.ignored.items():
        text = f'The key "{key}" has no effect ({lines} line(s) of the {kind} file)'
        events.append(Event(f"{kind}/key/{key}", text, "warn"))
    return events


def _link(source: Path, target: Path) -> None:
    """The same bytes under another name; a copy where the disk has no links."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        os.link(source, aside)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, aside)
        aside.chmod(0o600)
    os.replace(aside, target)


def _root(entry: Entry) -> str:
    """The base that a model was trained from, through all that came between."""
    if entry.id.startswith("ft:"):
        return entry.id.split(":")[1]
    return entry.id if entry.info.get("kind") == "base" else str(entry.info.get("base") or "model")
