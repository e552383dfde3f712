"""The runs that a ladder compares: found, or trained where they are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ownchat import artifacts
from ownchat.artifacts import CLEAN, TRAIN, read_json
from ownchat.config import Config, Origins, flatten, keys, load_config
from ownchat.errors import DataError, RunError, UserError
from ownchat.evaluate.recommendation import train_command
from ownchat.pipeline import run as whole
from ownchat.pipeline.run import REQUEST, Say, elapsed_text

METHODS = {"lora": "LoRA", "full": "all weights"}  # in the order of what they take
OF_A_PROMPT = ("data.system", "generate.prompt")  # derived from what was asked for, and from nothing else


def run_of(name: str, say: Say) -> Path:
    """The finished run that is meant; one that is begun, or a source that nothing was made of, is trained."""
    run = artifacts.run_directory(name)
    if artifacts.finished_model(run) is not None:
        return run
    if artifacts.is_hosted(run):
        return run
    if (job := artifacts.hosted_job(run)) is not None:
        raise RunError(
            f"its job at {job['host']} is not over: {job['status']}", where=run.name,
            fix=f"follow it to its end first: {train_command(run)}",
        )  # fmt: skip
    if (run / REQUEST).is_file():
        config, origins = given_settings(run)
        say(f"{run.name} is not finished: it is trained now")
        source = read_json(run / REQUEST)["source"]
        return whole.train(source, name=name, config=config, origins=origins, say=say).run
    if name.startswith("s3://") or Path(name).expanduser().exists():
        say(f"{name} is trained first")
        if not (run / "config.yaml").is_file():
            return whole.train(name, say=say).run
        config, origins = given_settings(run)  # of what was imported, cleaned or planned
        return whole.train(name, name=run.name, config=config, origins=origins, say=say).run
    artifacts.existing_run(name)  # says that there is none
    raise RunError("its training is not finished", where=str(run), fix="ownchat train finishes it")


def given_settings(run: Path, **changed: Any) -> tuple[Config, Origins]:
    """What a run was asked for: its settings without the ones that were derived (what came from a prompt stays), and
    with those that are ``changed`` (None: derived anew)."""
    from ownchat.evaluate.page import parse_settings

    file = run / "config.yaml"
    values, defaults = flatten(load_config(file)[0]), keys()
    origins = {key: "default" if value == defaults[key] else "given" for key, value in values.items()}
    origins |= {row["key"]: row["origin"] for row in parse_settings(file.read_text(encoding="utf-8"))}
    origins |= {key: "given" for key in OF_A_PROMPT if origins[key] != "default"}
    given = {key: values[key] for key in values if key not in changed and origins[key].startswith("given")}
    nothing = {key: None for key, value in given.items() if value is None}  # as a flag None says: not given
    return load_config(recipe=nothing, values=given | changed)


def trained_rungs(run: Path, config: Config, full: bool, say: Say) -> list[tuple[str, Path | None, str]]:
    """The rungs of trained models: name, run, and why there is none."""
    found: dict[str, Path] = {config.train.method: run}
    for method in METHODS:
        if method not in found and (other := _other(run, config, method)) is not None:
            found[method] = other
    if full and "full" not in found:
        found["full"] = _train_full(run, say)
    missing = {
        "full": f"not trained: ownchat ladder {run.name} --full",
        "lora": "not trained: ownchat train with --method lora",
    }
    return [(title, found.get(method), missing[method]) for method, title in METHODS.items()]


def _other(run: Path, config: Config, method: str) -> Path | None:
    """A finished run of the same records and base by another method; the newest."""
    key = artifacts.fingerprint(run / CLEAN)
    for other in reversed(artifacts.list_runs()):
        known = artifacts.finished_model(other) is not None and (other / CLEAN / artifacts.MANIFEST).is_file()
        if other == run or not known:
            continue
        try:
            settings, _ = load_config(other / "config.yaml")
        except UserError:  # of another version
            continue
        same = settings.train.method == method and settings.model.base == config.model.base
        if same and artifacts.fingerprint(other / CLEAN) == key:
            return other
    return None


def _train_full(run: Path, say: Say) -> Path:
    """All weights on the same records, kept as NAME-full."""
    from ownchat.evaluate.report import training

    name, source = f"{run.name}-full", read_json(run / REQUEST)["source"]
    config, origins = given_settings(run, **{"train.method": "full", "train.learning_rate": None})
    seconds = training(run / TRAIN).get("seconds")
    took = "" if seconds is None else f" ({run.name} took {elapsed_text(seconds)}; expect as long, or twice)"
    say(f"all weights are trained, as {name}{took}")
    begun = whole.import_and_clean(source, name=name, config=config, origins=origins, clean=True, say=say)
    if artifacts.fingerprint(begun / CLEAN) != artifacts.fingerprint(run / CLEAN):
        raise DataError(
            "it has changed since, so that the splits are not the same", where=str(source),
            fix=f"train it anew and climb that: ownchat train {source}",
        )  # fmt: skip
    return whole.train(source, name=name, config=config, origins=origins, say=say).run
