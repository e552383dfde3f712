"""Stage 5-train: token stores and a base model in, a plain Hugging Face directory out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ownchat import artifacts
from ownchat.artifacts import Report
from ownchat.config import Config
from ownchat.errors import RunError
from ownchat.generate import export
from ownchat.model import quantize
from ownchat.model.activations import check_device
from ownchat.model.compiled import compiled_kernels
from ownchat.model.load import can_pack, check_vocabulary, load_model, load_tokenizer
from ownchat.model.lora import add_lora, load_adapter
from ownchat.monitor.events import read_lines
from ownchat.tokenizer.store import TokenStore
from ownchat.train import checkpoint, decisions, memory
from ownchat.train.loop import Plan, run_loop, steps_in
from ownchat.train.micro_batch import block_tokens
from ownchat.train.objectives import Likelihood
from ownchat.train.optim import Optimizer
from ownchat.train.rescue import Rescue
from ownchat.train.signals import StopRequest
from ownchat.train.validation import validation_budget, validation_documents

PHASE = "sft"
SECTIONS = ("model", "train", "tokenizer")
LEARNING_RATES = {"lora": 2e-3, "full": 5e-5}  # LOG.md: tried over three seeds on real questions and answers
VALIDATIONS_PER_EPOCH = 2


def run(config: Config, inputs: dict[str, Path], output: Path, *, force: bool = False) -> Report:
    """``inputs``: ``tokens`` (4-tokens), ``tokenizer`` (3-tokenizer), ``base`` (a model directory).

    Goes on from the last checkpoint when the same training was interrupted. Raises
    :class:`~ownchat.errors.RunError` when an unfinished training with other settings lies there, unless ``force``:
    then it starts again from nothing.
    """
    key = artifacts.stage_key(config, SECTIONS, inputs)
    if report := artifacts.completed(output, key):
        return report
    quantize.check(config.model.quantize, config.train.method)
    phase = output / PHASE
    _begin(config, key, phase, force)
    memory.keep_freed_pages()
    memory.reset_peak()
    choice = decisions.decide(config, phase)
    check_device(choice.activations, choice.device)
    torch.set_num_threads(choice.threads)
    train, valid = TokenStore(inputs["tokens"] / "train"), TokenStore(inputs["tokens"] / "valid")
    if not choice.block_tokens:
        room = memory.available_bytes()
        largest = block_tokens(config, inputs["base"], choice, int(train.lengths.max()), room)
        choice = decisions.keep(phase, block_tokens=largest)
    tokenizer = load_tokenizer(inputs["tokenizer"])
    packed = choice.attention != "padded"
    model = load_model(inputs["base"], dtype=choice.dtype, packed=packed, quantize=config.model.quantize)
    check_vocabulary(model, tokenizer, inputs["base"])
    save_weights = prepare(model, config)
    choice = decisions.keep(phase, attention="packed" if can_pack(model) else "padded")
    plan = make_plan(config, train.lengths, choice.block_tokens)
    rescue = Rescue(model, phase, choice, block_tokens=plan.block_tokens, setting=config.train.activations)
    optimizer = Optimizer(model, weight_decay=config.train.weight_decay)
    documents = validation_documents(valid, validation_budget(train.num_tokens, plan))
    if choice.compile is None:
        flops = (4 if config.train.method == "lora" else 6) * float(model.num_parameters())
        flops *= plan.total_steps * train.num_tokens / plan.steps_per_epoch
        worth = decisions.worth_compiling(config.train.compile, choice, flops, config.train.minutes)
        choice = decisions.keep(phase, compile=worth)
    with StopRequest() as stop, compiled_kernels(bool(choice.compile), choice.dtype, choice.device):
        state = run_loop(
            model, Likelihood(), optimizer, train, documents, plan, phase,
            save_weights=save_weights, stop=stop, rescue=rescue,
            decided_total=choice.total_steps, replan=lambda total: decisions.keep(phase, total_steps=total),
        )  # fmt: skip
    peak = memory.peak_bytes()
    rescued = {
        "activations": rescue.activations(state.step),
        "validation_block_tokens": rescue.block_tokens(state.step, "validate"),
        "rescues": rescue.rows,
    }
    num_trained = optimizer.num_trained
    del model, optimizer, save_weights, rescue
    memory.return_freed_pages()
    difference = _finish(config, inputs, phase, output, state.best_step)
    figures = {
        "method": config.train.method,
        "base": str(inputs["base"]),
        "system": config.data.system,
        "device": choice.device,
        "dtype": choice.dtype,
        "quantize": config.model.quantize,
        "attention": choice.attention,
        "compile": choice.compile,
        "threads": choice.threads,
        "trained_weights": num_trained,
        "steps": state.step,
        "epochs": round(state.step / plan.steps_per_epoch, 2),
        "tokens": state.tokens,
        "trained_tokens": train.trained_tokens,
        "tokens_per_second": round(state.tokens / state.step_seconds, 1),
        "seconds": round(state.seconds, 1),
        "peak_memory_bytes": peak,
        "best_step": state.best_step,
        "best_loss": state.best_loss,
        "base_loss": next((row["validation_loss"] for row in read_lines(phase / "metrics.jsonl")), None),
        "stopped": state.stopped,
        "export_difference": difference,
        "plan": asdict(plan),
    } | rescued
    report = Report("train", output, {"steps": state.step, "tokens": state.tokens}, figures, state.seconds)
    return artifacts.commit(key, config, SECTIONS, report)


def make_plan(config: Config, lengths: np.ndarray, block_tokens: int) -> Plan:
    """The settings with everything derived that was left open; ``block_tokens`` see ``micro_batch.py``."""
    train = config.train
    per_epoch, total = steps_in(lengths, train.batch_tokens, train.epochs)
    return Plan(
        seed=train.seed,
        batch_tokens=train.batch_tokens,
        block_tokens=block_tokens,
        steps_per_epoch=per_epoch,
        total_steps=total,
        warmup_steps=max(1, round(total * train.warmup_share)),
        learning_rate=LEARNING_RATES[train.method] if train.learning_rate is None else train.learning_rate,
        schedule=train.schedule,
        clip=train.clip,
        validate_every=train.validate_every or max(1, round(per_epoch / VALIDATIONS_PER_EPOCH)),
        patience=train.patience,
        minutes=train.minutes,
    )


def _begin(config: Config, key: str, phase: Path, force: bool) -> None:
    """Make the phase's directory, or see that what lies there belongs to the same training."""
    settings = phase / "settings.json"
    mine = {"key": key} | _settings(config)
    if settings.is_file():
        theirs = artifacts.read_json(settings)
        if theirs["key"] == key:
            return
        if not force:
            refuse_unfinished(config, phase.parent)
    shutil.rmtree(phase.parent, ignore_errors=True)
    artifacts.write_json(settings, mine)


def refuse_unfinished(config: Config, output: Path) -> None:
    """Raise :class:`~ownchat.errors.RunError`, naming what differs, when a training that began lies in ``output``."""
    phase = output / PHASE
    if (output / artifacts.MANIFEST).is_file() or checkpoint.latest(phase / "checkpoints") is None:
        return
    difference = _difference(artifacts.read_json(phase / "settings.json"), _settings(config))
    raise RunError(
        f"an unfinished training with other settings lies here ({difference})",
        where=str(phase),
        fix="run it with the settings it began with, choose another --name, or give --force to start again",
    )


def _settings(config: Config) -> dict[str, Any]:
    return {section: getattr(config, section).model_dump() for section in SECTIONS}


def _difference(theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    changed = [
        f"{section}.{name}: {theirs[section].get(name)} then, {value} now"
        for section in SECTIONS
        for name, value in mine[section].items()
        if theirs[section].get(name) != value
    ]
    return "; ".join(changed) or "other data, or another base model"


def prepare(model: Any, config: Config) -> Callable[[Path], None]:
    """Say what is trained; returns how to save it into a checkpoint."""
    if config.train.method == "lora":
        settings = config.model
        wrapped = add_lora(model, rank=settings.lora_rank, alpha=settings.lora_alpha, seed=config.train.seed)
        return lambda path: wrapped.save_pretrained(str(path / "adapter"), safe_serialization=True)
    model.requires_grad_(True)
    return lambda path: model.save_pretrained(path / "model")


def _finish(config: Config, inputs: dict[str, Path], phase: Path, output: Path, best_step: int) -> float:
    """The best checkpoint as a plain directory in float32, checked against the trained model."""
    best = checkpoint.path_of(phase / "checkpoints", best_step)
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
        masters = checkpoint.load_tensors(best)
        named = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in masters.items():
                if name.startswith("master."):
                    named[name.removeprefix("master.")].copy_(tensor)
        export.save_result(model, tokenizer, target)
    artifacts.write_json(target / "ownchat.json", {"system": config.data.system, "base": str(inputs["base"])})
    sample, _ = TokenStore(inputs["tokens"] / "valid")[0]
    return export.check_result(target, model, sample[:256].tolist())


def derived(config: Config, report: Report) -> dict[str, tuple[Any, str]]:
    """Values that the configuration left open and this stage decided, with the reason: for ``config.yaml``."""
    plan, facts = report.details["plan"], report.details
    reasons: dict[str, tuple[Any, str]] = {}
    if config.train.block_tokens is None:
        reasons["train.block_tokens"] = (plan["block_tokens"], "what fits the memory")
    if config.train.learning_rate is None:
        reasons["train.learning_rate"] = (plan["learning_rate"], f"default of {config.train.method}")
    if config.train.validate_every is None:
        reasons["train.validate_every"] = (plan["validate_every"], f"{VALIDATIONS_PER_EPOCH} in an epoch")
    if config.train.threads is None:
        reasons["train.threads"] = (facts["threads"], "cores of this machine")
    if config.model.dtype == "auto":
        reasons["model.dtype"] = (facts["dtype"], "measured on this machine")
    return reasons
