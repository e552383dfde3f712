"""The phases of a training, one after the other: what each learns from, and how it goes on from the one before.

``sft`` learns conversations and documents, ``prefer`` preferences. A phase has a directory with ``decisions.json``,
``metrics.jsonl``, ``events.jsonl``, ``checkpoints/`` and, when it is done, ``result.json``. It begins with the base
and the trained weights of the phase before at their best step, so a run has one adapter however many phases it has.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ownchat import artifacts
from ownchat.config import Config
from ownchat.errors import ConfigError, RunError
from ownchat.model.activations import check_device
from ownchat.model.compiled import compiled_kernels
from ownchat.model.load import can_pack, check_vocabulary, load_model, load_tokenizer
from ownchat.model.lora import add_lora
from ownchat.monitor.events import read_lines
from ownchat.monitor.trackers import follow
from ownchat.tokenizer.store import TokenStore
from ownchat.train import checkpoint, decisions, distributed, memory
from ownchat.train.decisions import Decisions
from ownchat.train.distributed import ALONE, World
from ownchat.train.loop import Plan, run_loop, steps_in
from ownchat.train.micro_batch import fitting
from ownchat.train.objectives import Likelihood, Objective
from ownchat.train.optim import Optimizer
from ownchat.train.preferences import kto_weights
from ownchat.train.reference import preference_objective
from ownchat.train.rescue import Rescue
from ownchat.train.signals import StopRequest
from ownchat.train.validation import validation_budget, validation_items

RESULT = "result.json"
LEARNING_RATES = {"lora": 2e-3, "full": 5e-5}  # LOG.md: tried over three seeds on real questions and answers
PREFERENCE_LEARNING_RATES = {
    "lora": {"dpo": 2e-4, "kto": 2e-4, "orpo": 5e-4},
    "full": {"dpo": 5e-6, "kto": 5e-6, "orpo": 2e-5},
}
RSLORA_SHARE = 0.25  # of LoRA's rate: at rank 16 rsLoRA's product is scaled by four times as much
VALIDATIONS_PER_EPOCH = 2


@dataclass(frozen=True)
class Phase:
    """One part of a training. ``name``: of its directory; ``preference``: none where likelihood is learned."""

    name: Literal["sft", "prefer"]
    train: TokenStore
    valid: TokenStore
    epochs: float
    learning_rate: float
    minutes: float | None
    preference: Literal["dpo", "kto", "orpo"] | None = None


@dataclass(frozen=True)
class Trained:
    """A phase that is done: its figures, and the checkpoint that holds its best weights."""

    figures: dict[str, Any]
    best: Path


def phases_of(config: Config, tokens: Path) -> list[Phase]:
    """What there is to train on, in order. ``tokens``: the stage's directory.

    ``train.minutes`` is shared by tokens. Raises :class:`~ownchat.errors.ConfigError` for judged replies with an
    objective that needs pairs, and :class:`~ownchat.errors.RunError` when there is nothing.
    """
    train = config.train
    share = RSLORA_SHARE if train.method == "lora" and config.model.lora_variant == "rslora" else 1.0
    found: list[Phase] = []
    store = TokenStore(tokens / "train")
    if len(store):
        rate = share * LEARNING_RATES[train.method] if train.learning_rate is None else train.learning_rate
        found.append(Phase("sft", store, TokenStore(tokens / "valid"), train.epochs, rate, train.minutes))
    if (tokens / "prefer").is_dir() and len(store := TokenStore(tokens / "prefer" / "train")):
        if store.documents_per_item == 1 and train.preference != "kto":
            raise ConfigError(
                f"train.preference = {train.preference} learns from pairs, and the data hold single replies that "
                "somebody judged",
                fix="--set train.preference=kto learns from both; or leave the judged replies out",
            )
        rate = train.preference_learning_rate or share * PREFERENCE_LEARNING_RATES[train.method][train.preference]
        valid = TokenStore(tokens / "prefer" / "valid")
        found.append(
            Phase("prefer", store, valid, train.preference_epochs, rate, train.minutes, preference=train.preference)
        )
    if not found:
        raise RunError("there is nothing to train on", where=str(tokens), fix="run the stages before this one again")
    if train.minutes is None:
        return found
    tokens_of = [phase.train.num_tokens * phase.epochs for phase in found]
    return [
        replace(phase, minutes=train.minutes * mine / sum(tokens_of))
        for phase, mine in zip(found, tokens_of, strict=True)
    ]


def make_plan(config: Config, phase: Phase, block_tokens: int) -> Plan:
    """The settings with everything derived that was left open; ``block_tokens`` see ``micro_batch.py``."""
    train = config.train
    per_epoch, total = steps_in(phase.train.item_lengths, train.batch_tokens, phase.epochs)
    return Plan(
        seed=train.seed,
        batch_tokens=train.batch_tokens,
        block_tokens=block_tokens,
        steps_per_epoch=per_epoch,
        total_steps=total,
        warmup_steps=max(1, round(total * train.warmup_share)),
        learning_rate=phase.learning_rate,
        schedule=train.schedule,
        clip=train.clip,
        validate_every=train.validate_every or max(1, round(per_epoch / VALIDATIONS_PER_EPOCH)),
        patience=train.patience,
        minutes=phase.minutes,
    )


def train_phase(
    config: Config, inputs: dict[str, Path], phase: Phase, output: Path, before: Trained | None, stop: StopRequest
) -> Trained:
    """Train one phase, or go on with it, or read that it is done. ``output``: 5-train; ``before``: the phase before.

    Raises what :func:`~ownchat.train.loop.run_loop` raises.
    """
    world, directory = distributed.join(), output / phase.name

    def decided(decide: Callable[[], Decisions]) -> Decisions:
        """The first process decides, the others obey."""
        return Decisions(**world.from_first(lambda: asdict(decide())))

    if world.from_first(lambda: _done(directory) is not None):
        world.must_see(directory / RESULT)
        return _result(directory)
    like = None if before is None else before.best.parents[1]
    choice = decided(lambda: decisions.decide(config, directory, like=like))
    world.must_see(directory / decisions.NAME)
    world.connect()
    check_device(choice.activations, choice.device)
    torch.set_num_threads(choice.threads if world.alone else min(choice.threads, decisions.cores()))
    if not choice.block_tokens:
        longest, measured = int(phase.train.item_lengths.max()), choice
        room = memory.available_bytes() // (world.local_size if choice.device == "cpu" else 1)
        choice = decided(
            lambda: decisions.keep(directory, **fitting(config, inputs["base"], measured, longest, room, world.size))
        )
    # packed where the architecture allows it: the same path and the same kernels at a resume
    dtype = choice.dtype if world.alone or config.train.method == "lora" else "float32"  # masters are what is spread
    model = load_model(inputs["base"], dtype=dtype, packed=True, quantize=config.model.quantize)
    check_vocabulary(model, load_tokenizer(inputs["tokenizer"]), inputs["base"])
    save_weights = prepare(model, config, world, dtype=choice.dtype)
    attention = "packed" if can_pack(model) else "padded"
    choice = decided(lambda: decisions.keep(directory, attention=attention))
    together = world.shard(model, dtype=choice.dtype, whole_base=choice.base == "whole")
    plan = make_plan(config, phase, choice.block_tokens)
    rescue = Rescue(model, directory, choice, block_tokens=plan.block_tokens, setting=config.train.activations)
    optimizer = Optimizer(model, weight_decay=config.train.weight_decay, world=world)
    if before is not None:
        optimizer.load_masters(checkpoint.Saved(before.best))
    valid = validation_items(phase.valid, validation_budget(phase.train.num_tokens, plan))
    objective: Objective = Likelihood()
    if phase.preference is not None:
        objective = preference_objective(
            config.train,
            together,
            phase.train,
            valid,
            directory,
            block_tokens=plan.block_tokens,
            stop=stop,
            world=world,
        )
    if choice.compile is None:
        flops = (4 if config.train.method == "lora" else 6) * float(model.num_parameters())
        flops *= plan.total_steps * phase.train.num_tokens / plan.steps_per_epoch
        worth = decisions.worth_compiling(config.train.compile, choice, flops, phase.minutes)
        choice = decided(lambda: decisions.keep(directory, compile=worth))
    with (
        compiled_kernels(bool(choice.compile), choice.dtype, choice.device),
        follow(config, directory, asdict(plan)) if world.first else nullcontext() as trackers,
    ):
        state = run_loop(
            together, objective, optimizer, phase.train, valid, plan, directory,
            save_weights=save_weights, stop=stop, rescue=rescue, world=world, trackers=trackers,
            decided_total=choice.total_steps,
            replan=lambda total: decided(lambda: decisions.keep(directory, total_steps=total)),
        )  # fmt: skip
    validations = {row["step"]: row for row in read_lines(directory / "metrics.jsonl") if "validation_loss" in row}
    figures = {
        "objective": phase.preference or "likelihood",
        "device": choice.device,
        "dtype": choice.dtype,
        "attention": choice.attention,
        "compile": choice.compile,
        "threads": choice.threads,
        "processes": world.size,
        "shared_base": choice.base,
        "trained_weights": optimizer.num_trained,
        "steps": state.step,
        "epochs": round(state.step / plan.steps_per_epoch, 2),
        "tokens": state.tokens,
        "trained_tokens": phase.train.trained_tokens,
        "tokens_per_second": round(state.tokens / state.step_seconds, 1),
        "seconds": round(state.seconds, 1),
        "peak_memory_bytes": memory.peak_bytes(),
        "best_step": state.best_step,
        "best_loss": state.best_loss,
        "base_loss": validations.get(0, {}).get("validation_loss"),
        "before": _validated(validations.get(0, {})),
        "best": _validated(validations.get(state.best_step, {})),
        "stopped": state.stopped,
        "plan": asdict(plan),
        "activations": rescue.activations(state.step),
        "validation_block_tokens": rescue.block_tokens(state.step, "validate"),
        "rescues": rescue.rows,
    }
    if phase.preference == "kto":
        figures["kto_weights"] = kto_weights(*phase.train.judgements)
    world.from_first(lambda: artifacts.write_json(directory / RESULT, figures))
    return Trained(figures, checkpoint.path_of(directory / "checkpoints", state.best_step))


def prepare(model: Any, config: Config, world: World = ALONE, *, dtype: str = "float32") -> Callable[[Path], None]:
    """Say what is trained; returns how to save it into a checkpoint."""
    if config.train.method == "lora":
        settings = config.model
        wrapped = add_lora(
            model, rank=settings.lora_rank, alpha=settings.lora_alpha, seed=config.train.seed,
            variant=settings.lora_variant,
        )  # fmt: skip
        return lambda path: world.save_adapter(wrapped, path / "adapter")
    model.requires_grad_(True)
    return lambda path: world.save_model(model, path / "model", dtype=dtype)


def _done(directory: Path) -> Trained | None:
    """The result of a phase that is done and whose best checkpoint is whole."""
    if not (directory / RESULT).is_file():
        return None
    done = _result(directory)
    return done if isinstance(checkpoint.read_state(done.best), checkpoint.State) else None


def _result(directory: Path) -> Trained:
    figures = artifacts.read_json(directory / RESULT)
    return Trained(figures, checkpoint.path_of(directory / "checkpoints", figures["best_step"]))


def _validated(row: dict[str, Any]) -> dict[str, float]:
    """The figures of a validation: loss, and what else the objective found."""
    return {name.removeprefix("validation_"): row[name] for name in row if name.startswith("validation_")}
