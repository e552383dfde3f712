"""Stage 5-train: token stores and a base model in, a plain Hugging Face directory out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from ownchat import artifacts
from ownchat.artifacts import Report
from ownchat.config import Config
from ownchat.errors import RunError
from ownchat.generate import export
from ownchat.model import quantize
from ownchat.model.load import load_model, load_tokenizer
from ownchat.model.lora import load_adapter
from ownchat.monitor.progress import say
from ownchat.tokenizer.replay import told
from ownchat.tokenizer.store import Document
from ownchat.train import checkpoint, memory
from ownchat.train.distributed import join
from ownchat.train.phases import VALIDATIONS_PER_EPOCH, Phase, Trained, phases_of, train_phase
from ownchat.train.signals import StopRequest

SECTIONS = ("model", "train", "tokenizer")
TOLD = ("data", "clean", "tokenizer", "model", "train")  # sections whose differences a refusal names
SETTINGS = "settings.json"  # what the training began with


def run(config: Config, inputs: dict[str, Path], output: Path, *, force: bool = False) -> Report:
    """``inputs``: ``tokens`` (4-tokens), ``tokenizer`` (3-tokenizer), ``base`` (a model directory).

    Trains the phases that the data ask for (:mod:`ownchat.train.phases`). Goes on from the last checkpoint when the
    same training was interrupted. Raises :class:`~ownchat.errors.RunError` when an unfinished training with other
    settings lies there, unless ``force``: then it starts again from nothing.

    Under ``torchrun`` every process calls this; the first one makes and returns the result.
    """
    world = join()
    key = key_of(config, inputs)
    if report := artifacts.completed(output, key):
        return report
    quantize.check(config.model.quantize, config.train.method)
    phases = phases_of(config, inputs["tokens"], inputs["base"])
    world.from_first(lambda: _begin(config, key, output, force))
    for phase in phases if world.first else ():
        if phase.mix is not None and config.data.mix:
            say(f"data.mix, {phase.name}: {phase.mix.described()}")
        if phase.replay is not None:
            say(told(phase.replay))
    memory.reset_peak()
    done: dict[str, Trained] = {}
    with StopRequest(repeated=not world.alone) as stop:
        last: Trained | None = None
        for phase in phases:
            memory.keep_freed_pages()
            last = done[phase.name] = train_phase(config, inputs, phase, output, last, stop)
            memory.return_freed_pages()
    assert last is not None
    if not world.first:
        return Report("train", output)
    difference = _finish(config, inputs, last.best, output, phases[-1].valid[0])
    details = _details(config, inputs, done, phases) | {"export_difference": difference}
    counts = {name: sum(phase.figures[name] for phase in done.values()) for name in ("steps", "tokens")}
    report = Report("train", output, counts, details, details["seconds"])
    return artifacts.commit(key, config, SECTIONS, report)


def key_of(config: Config, inputs: dict[str, Path]) -> str:
    """What the result depends on."""
    key = artifacts.stage_key(config, SECTIONS, inputs)
    return f"{key}+{json.dumps(config.data.mix)}" if config.data.mix else key


def _details(config: Config, inputs: dict[str, Path], done: dict[str, Trained], phases: list[Phase]) -> dict[str, Any]:
    """The figures of the last phase, time and memory of all of them, and ``phases``: the figures of each."""
    figures = {name: phase.figures for name, phase in done.items()}
    return {
        "method": config.train.method,
        "base": str(inputs["base"]),
        "system": config.data.system,
        "quantize": config.model.quantize,
        **figures[phases[-1].name],
        "seconds": round(sum(each["seconds"] for each in figures.values()), 1),
        "peak_memory_bytes": max(each["peak_memory_bytes"] for each in figures.values()),
        "phases": figures,
    }


def _begin(config: Config, key: str, output: Path, force: bool) -> None:
    """Make the stage's directory, or see that what lies there belongs to the same training."""
    settings = output / SETTINGS
    if settings.is_file():
        if artifacts.read_json(settings)["key"] == key:
            return
        if not force:
            refuse_unfinished(config, output)
    shutil.rmtree(output, ignore_errors=True)
    artifacts.write_json(settings, {"key": key} | _settings(config))


def refuse_unfinished(config: Config, output: Path) -> None:
    """Raise :class:`~ownchat.errors.RunError`, naming what differs, when a training that began lies in ``output``."""
    begun = [path.parent for path in output.glob("*/checkpoints") if checkpoint.latest(path) is not None]
    if (output / artifacts.MANIFEST).is_file() or not begun:
        return
    difference = _difference(artifacts.read_json(output / SETTINGS), _settings(config))
    raise RunError(
        f"an unfinished training with other settings lies here ({difference})",
        where=str(output),
        fix="run it with the settings it began with, choose another --name, or give --force to start again",
    )


def _settings(config: Config) -> dict[str, Any]:
    """What a model depends on: also how its data were read and cleaned, which comes here as tokens."""
    return {section: getattr(config, section).model_dump(exclude={"workers", "engine"}) for section in TOLD}


def _difference(theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    changed = [
        f"{section}.{name}: {theirs[section].get(name)} then, {value} now"
        for section in TOLD
        for name, value in mine[section].items()
        if section in theirs and theirs[section].get(name) != value
    ]
    return "; ".join(changed) or "other data, or another base model"


def _finish(config: Config, inputs: dict[str, Path], best: Path, output: Path, sample: Document) -> float:
    """The best checkpoint as a plain directory in float32, checked against the trained model."""
    target, adapter = output / "model", output / "adapter"
    tokenizer = load_tokenizer(inputs["tokenizer"])
    for directory in (target, adapter):
        shutil.rmtree(directory, ignore_errors=True)
    if config.train.method == "lora":
        shutil.copytree(best / "adapter", adapter)
        # Into the base as it is, also where the adapter learned beside 4-bit weights: the result is better than what
        # was trained (LOG.md). A base that is held in four bits may be too large for the GPU in float32.
        device = None if config.model.quantize == "none" else "cpu"
        export.merge_adapter(inputs["base"], adapter, target, tokenizer, device=device)
        model = load_adapter(load_model(inputs["base"], device=device), adapter)
    else:
        model = load_model(best / "model")
        saved = checkpoint.Saved(best)
        named = dict(model.named_parameters())
        with torch.no_grad():
            for name in saved:
                if name.startswith("master."):
                    named[name.removeprefix("master.")].copy_(saved.read(name))
        export.save_result(model, tokenizer, target)
    artifacts.write_json(target / "ownchat.json", {"system": config.data.system, "base": str(inputs["base"])})
    return export.check_result(target, model, sample[0][:256].tolist())


def derived(config: Config, report: Report) -> dict[str, tuple[Any, str]]:
    """Values that the configuration left open and this stage decided, with the reason: for ``config.yaml``."""
    facts, train = report.details, config.train
    reasons: dict[str, tuple[Any, str]] = {}
    if train.block_tokens is None:
        reasons["train.block_tokens"] = (facts["plan"]["block_tokens"], "what fits the memory")
    if train.learning_rate is None and "sft" in facts["phases"]:
        rate = facts["phases"]["sft"]["plan"]["learning_rate"]
        why = "from the rate of pre-training" if "pretrain" in facts["phases"] else f"default of {train.method}"
        reasons["train.learning_rate"] = (rate, why)
    if train.preference_learning_rate is None and "prefer" in facts["phases"]:
        rate = facts["phases"]["prefer"]["plan"]["learning_rate"]
        reasons["train.preference_learning_rate"] = (rate, f"default of {train.preference} with {train.method}")
    if "pretrain" in facts["phases"]:
        plan = facts["phases"]["pretrain"]["plan"]
        used = {name: plan[name] for name in ("learning_rate", "batch_tokens")} | train.pretrain
        reasons["train.pretrain"] = (used, "model and text; passes and decay: 4-model/dial.json")
    elif train.validate_every is None:  # pre-training has its own distance, which given back would not be derived
        reasons["train.validate_every"] = (facts["plan"]["validate_every"], f"{VALIDATIONS_PER_EPOCH} in an epoch")
    if train.threads is None:
        reasons["train.threads"] = (facts["threads"], "cores of this machine")
    if config.model.dtype == "auto":
        reasons["model.dtype"] = (facts["dtype"], "measured on this machine")
    return reasons
