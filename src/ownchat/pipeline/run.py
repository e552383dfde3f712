"""The whole way: a folder of text in, a chat model and a report out. A stage that is complete is not run again."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from ownchat import artifacts
from ownchat.artifacts import CLEAN, MODEL, REPORT, TOKENIZER, TOKENS, TRAIN, owner_only
from ownchat.clean.recipe import check_settings, result_key
from ownchat.config import FROM_NOTHING, Config, Origins, load_config, to_yaml, with_derived
from ownchat.data.remote import Remote, Source, existing, locate
from ownchat.errors import ConfigError, RunError
from ownchat.evaluate import care, gates, judge
from ownchat.evaluate.cost import metered
from ownchat.generate.policy import Policy
from ownchat.model import quantize
from ownchat.model.presets import parse_size
from ownchat.monitor import trackers
from ownchat.pipeline import cards, replay
from ownchat.pipeline.delivery import deliver, refuse_inside, refuse_occupied
from ownchat.pipeline.first_stages import Say as Say
from ownchat.pipeline.first_stages import cleaned, imported, tell
from ownchat.pipeline.lines import tokenized, trained
from ownchat.pipeline.settings import keep_evaluation
from ownchat.pipeline.system_prompt import keep_prompt, with_prompt
from ownchat.tokenizer import canaries
from ownchat.train.distributed import World, join, together

FromNothing = Literal["made", "described", "left"]

REQUEST = "request.json"  # what the run was asked to do: the source, and the hash of everything it depends on


@dataclass(frozen=True)
class Outcome:
    """A finished run: its directory, the contents of ``report.json``, and whether anything had to be done."""

    run: Path
    report: dict[str, Any]
    worked: bool


@owner_only()
def train(
    source: Source | str,
    *,
    name: str | None = None,
    config: Config | None = None,
    origins: Origins | None = None,
    force: bool = False,
    say: Say = print,
) -> Outcome:
    """Import, clean, split, tokenize, train, evaluate, report.

    ``source``: a file or a folder, or ``s3://bucket/prefix``. ``name``: of the run; none: from the source. A run of
    this name that finished with the same data and settings is returned as it is; with others the new run is NAME-2.
    ``say`` gets one line for each stage. Under ``torchrun`` the first process does all this, and the others train with
    it; they leave by ``SystemExit`` when it is over.

    >>> train("/nowhere/at/all", say=lambda line: None)
    Traceback (most recent call last):
    ...
    ownchat.errors.DataError: /nowhere/at/all: there is no such file or folder
    What to do: check the path
    """
    with together() as world:
        if not world.first:
            _take_part(world)
        return _train(source, name, config, origins, force, say)


def _take_part(world: World) -> NoReturn:
    """What processes but the first do: wait for the data, train, wait for the end."""
    told = world.from_first(dict)
    from ownchat.train import stage as training

    inputs = {name: Path(path) for name, path in told["inputs"].items()}
    world.must_see(inputs["tokens"] / artifacts.MANIFEST)
    if inputs["base"].name == MODEL:  # made for this run
        world.must_see(inputs["base"] / artifacts.MANIFEST)
    training.run(Config(**told["config"]), inputs, Path(told["output"]), force=told["force"])
    raise SystemExit(world.follow())


def _train(
    source: Source | str, name: str | None, config: Config | None, origins: Origins | None, force: bool, say: Say
) -> Outcome:
    source = existing(source)
    if config is None:
        config, origins = load_config()
    check_settings(config)
    if config.model.size is not None:
        parse_size(config.model.size)
    quantize.check(config.model.quantize, config.train.method)
    trackers.check(config.train.trackers)
    gates.parse(config.evaluate.require)
    Policy.of(config.generate.policy)
    judge.check(config.evaluate)
    care.check(config)
    config, origins = with_prompt(config, origins or {})
    run, key = run_for(source, name, config)
    before = _report_key(run)
    with artifacts.locked(run), metered(run):
        refuse_other_request(run, key, config, force)
        place = source.resolve() if isinstance(source, Path) else source
        artifacts.write_json(run / REQUEST, {"source": str(place), "key": key})
        if note := keep_prompt(config, run):
            say(f"           {note}")
        report = _stages(source, run, config, origins, force, say)
    return Outcome(run, report, worked=before is None or before != _report_key(run))


@owner_only()
def evaluate(
    name: str, *, config: Config | None = None, origins: Origins | None = None, say: Say = print
) -> Outcome:  # fmt: skip
    """Measure a finished run again, with the evaluation settings given; only ``6-report`` is made anew.

    They become those of the run: its ``config.yaml`` has them from then on, and the next evaluation begins with them.
    """
    run = artifacts.existing_run(name)
    if artifacts.is_hosted(run):
        from ownchat.pipeline import hosted

        return hosted.evaluate(run, config=config, origins=origins, say=say)
    if artifacts.finished_model(run) is None:
        raise RunError("its training is not finished", where=str(run), fix="run the same ownchat train again")
    if config is None:
        config, origins = load_config(run / "config.yaml")
    gates.parse(config.evaluate.require)
    Policy.of(config.generate.policy)
    judge.check(config.evaluate)
    care.check(config, run)
    base = Path(artifacts.read_json(run / TRAIN / "model" / "ownchat.json")["base"])
    with artifacts.locked(run):
        keep_evaluation(run, config, origins or {})
        report = _evaluate(run, base, config, say)
    return Outcome(run, report, worked=True)


@owner_only()
def import_and_clean(
    source: Source | str,
    *,
    name: str | None,
    config: Config,
    origins: Origins,
    clean: bool,
    to: Source | str | None = None,
    say: Say = print,
) -> Path:
    """The first stages alone; ``ownchat train`` goes on from there. Returns the run's directory.

    ``to``: where a copy of what was cleaned goes, see :func:`~ownchat.pipeline.delivery.deliver`.
    """
    if isinstance(to, str) and not to.strip():
        raise ConfigError(
            "an empty name is no place for a copy", where="--to", fix="name a folder, or s3://bucket/prefix"
        )
    source, target = existing(source), None if to is None else locate(to)
    if clean:
        check_settings(config)
    config, origins = with_prompt(config, origins)
    if target is not None:
        refuse_inside(source, target)
        refuse_occupied(target)  # before hours of work
    run = artifacts.run_directory(artifacts.free_run_name(name or run_name(source)))
    with artifacts.locked(run):
        artifacts.write_atomic(run / "config.yaml", to_yaml(config, origins))
        data = imported(source, run, config, say)
        if target is not None:
            refuse_occupied(target, result_key(config, data))
        if clean:
            cleaned(data, run, config, say)
        if target is not None:
            deliver(run / CLEAN, target, say)
    return run


def run_name(source: Source) -> str:
    """A run's name from its source: letters, digits, dots and dashes.

    >>> run_name(Path("inbox/Support Mail.csv.gz"))
    'support-mail'
    """
    if isinstance(source, Remote):
        name = source.name if source.is_dir() else source.name.split(".")[0]
        return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.") or "run"
    stem = source.resolve().name.split(".")[0] if source.is_file() or "." in source.name else source.resolve().name
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-.") or "run"


def run_for(source: Source, name: str | None, config: Config, *, on: str = "") -> tuple[Path, str]:
    """Where this source is trained with these settings, and the key of the request: the run that was made for it, or
    the first one that holds no finished model. ``on``: the service that trains it; empty: this machine.
    """
    name, key = name or run_name(source), request_key(config, source) + on
    return _run_of(name, key) or artifacts.run_directory(artifacts.free_run_name(name)), key


def _run_of(name: str, key: str) -> Path | None:
    """The run NAME or NAME-n that was asked for exactly this, complete or not."""
    first = artifacts.run_directory(name)
    for run in [first, *sorted(first.parent.glob(f"{first.name}-[0-9]*"))]:
        if (run / REQUEST).is_file() and artifacts.read_json(run / REQUEST)["key"] == key:
            return run
    return None


def request_key(config: Config, source: Source) -> str:
    """What the model depends on: data, settings up to training, and a base that is a directory of the user's."""
    inputs: dict[str, Source] = {"source": source} | replay.inputs(config)
    if config.model.base != FROM_NOTHING and Path(config.model.base).expanduser().is_dir():
        inputs["base"] = Path(config.model.base).expanduser()
    if config.tokenizer.base is not None and Path(config.tokenizer.base).expanduser().is_dir():
        inputs["tokenizer"] = Path(config.tokenizer.base).expanduser()
    sections = ("data", "clean", "tokenizer", "model", "train", *(("generate",) if config.generate.questions else ()))
    return artifacts.stage_key(config, sections, inputs) + canaries.planting(config).mark


def _report_key(run: Path) -> str | None:
    manifest = run / REPORT / artifacts.MANIFEST
    return artifacts.fingerprint(run / REPORT) if manifest.is_file() else None


def refuse_other_request(run: Path, key: str, config: Config, force: bool) -> None:
    """Before any stage is built anew: an unfinished training of something else keeps its data."""
    asked = artifacts.read_json(run / REQUEST)["key"] if (run / REQUEST).is_file() else key
    if asked != key and not force:
        from ownchat.train import stage as training

        training.refuse_unfinished(config, run / TRAIN)


def _stages(source: Source, run: Path, config: Config, origins: Origins, force: bool, say: Say) -> dict[str, Any]:
    base = to_tokens(source, run, config, origins, say)
    from ownchat.train import stage as training

    inputs = {"tokens": run / TOKENS, "tokenizer": run / TOKENIZER, "base": base}
    paths = {name: str(path.resolve()) for name, path in inputs.items()}
    join().from_first(
        lambda: {"config": config.model_dump(mode="json"), "inputs": paths, "output": str(run.resolve() / TRAIN),
                 "force": force}
    )  # fmt: skip
    done = training.run(config, inputs, run / TRAIN, force=force)
    artifacts.write_atomic(run / "config.yaml", to_yaml(*with_derived(config, origins, training.derived(config, done))))
    details = done.details
    lines = [trained(name, facts) for name, facts in details["phases"].items()]
    tell(say, done, lines[0])
    for line in lines[1:]:
        say(f"           {line}")
    for facts in details["phases"].values():
        if facts["stopped"]:
            say(f"           stopped early: {facts['stopped']}; the best step, {facts['best_step']}, was kept")
    return _evaluate(run, base, config, say)


def to_tokens(
    source: Source, run: Path, config: Config, origins: Origins, say: Say, *, model: FromNothing = "made"
) -> Path:
    """The stages before training, into a run that is held; returns the base model's directory.

    ``model``: whether one from nothing is made, or only described in its directory, or left to somebody else.
    """
    artifacts.write_atomic(run / "config.yaml", to_yaml(config, origins))
    data = imported(source, run, config, say)
    cleaned(data, run, config, say)
    # Only now: these take seconds to load, and what is wrong with the data should be told before.
    from ownchat.tokenizer.tokens import run_tokens

    base = _tokenizer(run, config, say)
    general = replay.prepared(config, run, lambda report, text: tell(say, report, text))
    done = run_tokens(config, {"clean": run / CLEAN, "tokenizer": run / TOKENIZER} | general, run / TOKENS)
    tell(say, done, tokenized(done.counts))
    if base is not None or model == "left":
        return base or run / MODEL
    return _model(run, config, say, weights=model == "made")


def base_of(config: Config, run: Path) -> Path:
    """The pre-trained model that training begins with, once the stages before it are done."""
    from ownchat.model.load import resolve_base

    resized = config.tokenizer.base is not None and (run / MODEL).is_dir()
    return run / MODEL if resized else resolve_base(config.model.base)


def _tokenizer(run: Path, config: Config, say: Say) -> Path | None:
    """Stage 3-tokenizer; returns the base model's directory, none for a model from nothing."""
    from ownchat.model import resize
    from ownchat.model.load import resolve_base, resolve_tokenizer
    from ownchat.tokenizer import stage

    base = None if config.model.base == FROM_NOTHING else resolve_base(config.model.base)
    if config.tokenizer.base is not None:
        inputs = {"base": resolve_tokenizer(config.tokenizer.base)}
        inputs |= {"clean": run / CLEAN} if base is None else {"model": base}  # whose context it is to have
        stage.run_tokenizer(config, inputs, run / TOKENIZER)
        if base is not None and resize.is_needed(base, run / TOKENIZER):
            done = resize.run_resize(config, {"base": base, "tokenizer": run / TOKENIZER}, run / MODEL)
            counts = done.counts
            tell(
                say, done, f"{counts['kept']:,} tokens kept their row, {counts['pieces'] + counts['new']:,} began anew"
            )
            return run / MODEL
        if base is not None:
            shutil.rmtree(run / MODEL, ignore_errors=True)  # of other settings that were planned here
    elif base is not None:
        stage.run_tokenizer(config, {"base": base}, run / TOKENIZER)
    else:
        done = stage.run_tokenizer(config, {"clean": run / CLEAN}, run / TOKENIZER)
        tell(say, done, f"{done.counts['vocab']:,} tokens learned from the text ({config.tokenizer.kind})")
    return base


def _model(run: Path, config: Config, say: Say, *, weights: bool) -> Path:
    """Stage 4-model: what a model from nothing will be, and why; returns its directory."""
    from ownchat.model import dial, stage
    from ownchat.train.speed import training_flops_here

    inputs = {"tokens": run / TOKENS, "tokenizer": run / TOKENIZER}

    def speed() -> float:
        return join().size * training_flops_here(config)

    done = stage.run_model(config, inputs, run / MODEL, flops_per_second=speed, weights=weights)
    tell(say, done, f"{done.counts['parameters']:,} weights from nothing")
    for line in dial.lines(done.details):
        say(f"           {line}")
    return run / MODEL


def _evaluate(run: Path, base: Path, config: Config, say: Say) -> dict[str, Any]:
    from ownchat.evaluate import held_out
    from ownchat.evaluate import report as reporting

    done = held_out.run(config, {"test": run / CLEAN, "base": base, "train": run / TRAIN}, run / REPORT)
    tell(say, done, f"{done.counts['records']:,} held-out records, {done.counts['answers']} answers")
    report = reporting.recheck(run, config)
    cards.write(run)
    return report


def elapsed(start: float) -> str:
    """Minutes and seconds since ``start`` (``time.monotonic``)."""
    return elapsed_text(time.monotonic() - start)


def elapsed_text(total: float) -> str:
    """Seconds for people.

    >>> elapsed_text(3.4), elapsed_text(219)
    ('3 s', '3 min 39 s')
    """
    minutes, seconds = divmod(round(total), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
