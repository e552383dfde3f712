"""``ownchat benchmark``: which model a name means, and where the figures go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ownchat import artifacts
from ownchat.errors import UserError
from ownchat.evaluate.benchmarks import (
    Benchmarks,
    Settings,
    measure,
    measure_url,
    require_harness,
    save,
    split_tasks,
)
from ownchat.evaluate.benchmarks import lines as lines


@artifacts.owner_only()
def benchmark(
    name: str,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    shots: int | None = None,
    compare: bool = False,
    chat: bool = False,
    include: Path | None = None,
    tokenizer: Path | None = None,
) -> tuple[Benchmarks, Path | None]:
    """Measure a run, a model directory, or ``URL#MODEL``; of a run the figures are kept beside its report, and the
    path is returned. Raises :class:`~ownchat.errors.UserError`."""
    from ownchat.generate.openai import is_url

    settings = Settings(split_tasks(tasks), limit, shots, chat, include)
    if not settings.tasks:
        raise UserError("no task is named", where="--tasks", fix="for example --tasks hellaswag,arc_easy --limit 200")
    require_harness()
    if is_url(name):
        if compare:
            raise UserError(
                "the base of a model behind a URL is not known", where="--compare", fix="measure each alone"
            )
        return _behind_url(name, settings, tokenizer), None
    if tokenizer is not None:
        raise UserError("a model directory has its own", where="--tokenizer", fix="leave it out")
    models, run = _models(name, compare)
    found = measure(models, settings)
    if run is None or not (run / artifacts.REPORT).is_dir():
        return found, None
    with artifacts.locked(run):
        return found, save(found, run / artifacts.REPORT)


def _behind_url(name: str, settings: Settings, tokenizer: Path | None) -> Benchmarks:
    from ownchat.generate.openai import OpenAIEngine, parse_model
    from ownchat.model.load import resolve_tokenizer

    words = None if tokenizer is None else resolve_tokenizer(str(tokenizer))
    engine = OpenAIEngine(*parse_model(name))
    try:
        return measure_url(engine.url, engine.model, settings, tokenizer=words)
    finally:
        engine.close()


def _models(name: str, compare: bool) -> tuple[dict[str, Path], Path | None]:
    """Model directories by the name of their column, and the run they belong to."""
    from ownchat.generate.locate import locate
    from ownchat.model.load import resolve_base

    run = artifacts.run_directory(name)
    is_run = (run / "config.yaml").is_file()
    path = run if is_run else resolve_base(name)
    found = locate(path)
    if not compare:
        return {"tuned" if is_run else "model": found.model}, run if is_run else None
    if found.base is None:
        raise UserError("its base is not known", where=name, fix="--compare works with the result of ownchat train")
    return {"base": found.base, "tuned": found.model}, run if is_run else None
