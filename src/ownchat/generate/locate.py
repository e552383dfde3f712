"""Where the model of a run lies, and what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ownchat.artifacts import TRAIN, finished_model, hosted_job, read_json
from ownchat.errors import ModelError, RunError

NOTE = "ownchat.json"  # beside the weights: {"system": "...", "base": "/path/of/base"}


@dataclass(frozen=True)
class Located:
    """A model directory; if training made it: its adapter, its base and the system prompt it was trained with."""

    model: Path
    adapter: Path | None = None
    base: Path | None = None
    system: str | None = None


def locate(path: Path | str) -> Located:
    """The model at ``path``, which is a run's directory or a Hugging Face directory.

    Raises :class:`~ownchat.errors.RunError` for a run whose training is not complete and
    :class:`~ownchat.errors.ModelError` where there is no model.
    """
    path = Path(path)
    model = path
    if finished_model(path) is None and (job := hosted_job(path)) is not None:
        fix = f"ownchat chat {path.name} asks it there" if "tuned" in job else "run the same training command again"
        raise RunError(f"its model is at {job['host']}, and not on this machine", where=str(path), fix=fix)
    if (path / TRAIN).is_dir() and not (path / "config.json").exists():
        finished = finished_model(path)
        if finished is None:
            raise RunError("its training is not finished", where=str(path), fix="run the same training command again")
        model = finished
    if not (model / "config.json").is_file():
        raise ModelError("no model here", where=str(path), fix="give the name of a run or a Hugging Face directory")
    if not (model / NOTE).is_file():
        return Located(model)
    note = read_json(model / NOTE)
    adapter = model.parent / "adapter"
    return Located(
        model=model,
        adapter=adapter if (adapter / "adapter_config.json").is_file() else None,
        base=Path(note["base"]) if note.get("base") else None,
        system=note.get("system") or None,
    )
