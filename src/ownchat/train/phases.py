"""The phases of a training, one after the other: what each learns from, and how it goes on from the one before.

A model from nothing begins with ``pretrain``: all text, all of its tokens. ``sft`` learns conversations (and documents,
where the base can speak already), ``prefer`` preferences. A phase has a directory with ``decisions.json``,
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
from ownchat.config import FROM_NOTHING, Config
from ownchat.errors import ConfigError, RunError
from ownchat.model.activations import check_device
from ownchat.model.compiled import compiled_kernels, compiled_layers
from ownchat.model.load import can_pack, check_vocabulary, load_model, load_tokenizer
from ownchat.model.lora import add_lora
from ownchat.model.scaling_law import MOST_EPOCHS
from ownchat.monitor.events import read_lines
from ownchat.monitor.trackers import follow
from ownchat.tokenizer.mix import mixes
from ownchat.tokenizer.packing import Mix, epoch_tokens, pack, usual_block
from ownchat.tokenizer.replay import replay_of, with_replay
from ownchat.tokenizer.store import TokenStore
from ownchat.tokenizer.tokens import PRETRAIN
from ownchat.train import checkpoint, decisions, distributed, memory
from ownchat.train.decisions import Decisions
from ownchat.train.distributed import ALONE, World, nobody
from ownchat.train.loop import run_loop
from ownchat.train.micro_batch import fitting
from ownchat.train.muon import MOMENTUM
from ownchat.train.objectives import Likelihood, Objective
from ownchat.train.optim import Optimizer
from ownchat.train.preferences import kto_weights
from ownchat.train.reference import preference_objective
from ownchat.train.rescue import Rescue
from ownchat.train.schedule import FEWEST_VALIDATIONS, Plan, Schedule, steps_in
from ownchat.train.signals import StopRequest
from ownchat.train.validation import Samples, sample_prompts, text_bytes, validation_budget, validation_items

RESULT = "result.json"
DIAL = "dial.json"  # beside a model from nothing: how it is to be trained (ownchat.model.dial)
LEARNING_RATES = {"lora": 2e-3, "full": 5e-5}  # LOG.md: tried over three seeds on real questions and answers
# LOG.md: higher ones win more pairs, and unlearn what the conversations taught. Those of all weights were not tried:
# in the same ratio to an adapter's as in fine-tuning.
PREFERENCE_LEARNING_RATES = {
    "lora": {"dpo": 5e-5, "kto": 5e-5, "orpo": 1e-3},
    "full": {"dpo": 1e-6, "kto": 1e-6, "orpo": 2e-5},
}
RSLORA_SHARE = 0.25  # of LoRA's rate: at rank 16 rsLoRA's product is scaled by four times as much
VALIDATIONS_PER_EPOCH = 2
FASTER = 2.0  # a machine may be than was guessed
PRETRAINING_VALIDATIONS, STEPS_BETWEEN_VALIDATIONS = 20, 25  # at most so many, so far apart where steps are few
PRETRAINING_BETAS = (0.9, 0.95)  # Brown et al. 2020


@dataclass(frozen=True)
class Phase:
    """One part of a training. ``name``: of its directory; ``preference``: none where likelihood is learned."""

    name: Literal["pretrain", "sft", "prefer"]
    train: TokenStore
    valid: TokenStore
    epochs: float
    learning_rate: float
    minutes: float | None
    batch_tokens: int
    schedule: Schedule
    warmup_share: float
    weight_decay: float
    optimizer: Literal["adamw", "muon"]
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = MOMENTUM  # Muon's
    preference: Literal["dpo", "kto", "orpo"] | None = None
    mix: Mix | None = None  # none: everything once in an epoch
    replay: dict[str, Any] | None = None  # what of it is general, see ownchat.tokenizer.replay; none: nothing

    @property
    def epoch_tokens(self) -> float:
        """Tokens of one epoch."""
        return epoch_tokens(self.train.item_lengths, self.mix)


@dataclass(frozen=True)
class Trained:
    """A phase that is done: its figures, and the checkpoint that holds its best weights."""

    figures: dict[str, Any]
    best: Path


def phases_of(config: Config, tokens: Path, base: Path | None = None) -> list[Phase]:
    """What there is to train on, in order. ``tokens``: the stage's directory. ``base``: of a model from nothing, where
    its ``dial.json`` is; none: beside the tokens.

    ``train.minutes`` is shared by tokens. Raises :class:`~ownchat.errors.ConfigError` for judged replies with an
    objective that needs pairs, and for a ``data.mix`` that names what is not there, and
    :class:`~ownchat.errors.RunError` when there is nothing.
    """
    train, from_nothing = config.train, config.model.base == FROM_NOTHING
    if train.optimizer == "muon" and train.method == "lora":
        raise ConfigError(
            "train.optimizer = muon is for the matrices of a model, and an adapter's are halves of a product",
            fix="leave train.optimizer out, or train all weights: --method full",
        )
    dial = artifacts.read_json((base or tokens.parent / artifacts.MODEL) / DIAL) if from_nothing else {}
    kind: Literal["adamw", "muon"] = "muon" if train.optimizer == "muon" else "adamw"
    common: dict[str, Any] = {
        "minutes": train.minutes,
        "batch_tokens": train.batch_tokens,
        "schedule": "cosine" if train.schedule == "auto" else train.schedule,
        "warmup_share": train.warmup_share,
        "weight_decay": train.weight_decay,
        "optimizer": kind,
    }
    found: list[Phase] = []
    if from_nothing:
        found.append(_pretraining(config, tokens, dial["pretrain"] | train.pretrain, common))
    share = RSLORA_SHARE if train.method == "lora" and config.model.lora_variant == "rslora" else 1.0
    store, valid = TokenStore(tokens / "train"), TokenStore(tokens / "valid")
    if len(store) and (len(valid) or not from_nothing):
        usual = dial["sft"]["learning_rate"] if from_nothing else share * LEARNING_RATES[train.method]
        rate = usual if train.learning_rate is None else train.learning_rate
        found.append(Phase("sft", store, valid, train.epochs, rate, **common))
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
            Phase("prefer", store, valid, train.preference_epochs, rate, preference=train.preference, **common)
        )
    if not found:
        raise RunError("there is nothing to train on", where=str(tokens), fix="run the stages before this one again")
    return _sharing_time(_mixed(config, found))


def _pretraining(config: Config, tokens: Path, derived: dict[str, float], common: dict[str, Any]) -> Phase:
    """All text with all of its tokens, at the numbers that were derived from the model and the text."""
    own = {
        "batch_tokens": int(derived["batch_tokens"]),
        "schedule": "wsd" if config.train.schedule == "auto" else config.train.schedule,
        "warmup_share": derived["warmup_share"],
        "weight_decay": derived["weight_decay"],
        "optimizer": "muon" if config.train.optimizer == "auto" else config.train.optimizer,
        "betas": PRETRAINING_BETAS,
        "momentum": derived.get("momentum", MOMENTUM),
    }
    train, valid = (TokenStore(tokens / PRETRAIN / split) for split in ("train", "valid"))
    return Phase("pretrain", train, valid, derived["epochs"], derived["learning_rate"], **(common | own))


def _mixed(config: Config, phases: list[Phase]) -> list[Phase]:
    """As ``data.mix`` and ``train.replay`` say; a phase of which it leaves nothing is left out."""
    found, wanted = mixes(config.data.mix, [phase.train for phase in phases]), replay_of(config)
    mixed = [replace(phase, mix=mix) for phase, mix in zip(phases, found, strict=True)]
    for number, phase in enumerate(mixed):
        if wanted is not None and phase.name == "sft":
            mix, facts = with_replay(phase.train, phase.mix, wanted.share)
            mixed[number] = replace(phase, mix=mix, replay=facts)
    kept = [phase for phase in mixed if phase.mix is None or phase.mix.num_documents]
    if not kept:
        raise ConfigError("it leaves out everything that there is", where="data.mix")
    return kept


def _sharing_time(phases: list[Phase]) -> list[Phase]:
    work = [phase.epoch_tokens * phase.epochs for phase in phases]
    return [
        phase if phase.minutes is None else replace(phase, minutes=phase.minutes * mine / sum(work))
        for phase, mine in zip(phases, work, strict=True)
    ]


def with_room(config: Config, phase: Phase) -> Phase:
    """With more passes to choose from where they come from a guessed speed: a faster machine is to use its minutes, at
    the end of which the loop ends in any case."""
    if phase.name != "pretrain" or phase.minutes is None or "epochs" in config.train.pretrain:
        return phase
    more = max(1.0, min(FASTER, MOST_EPOCHS / phase.epochs))
    return replace(phase, epochs=more * phase.epochs, warmup_share=phase.warmup_share / more)


def make_plan(config: Config, phase: Phase, block_tokens: int) -> Plan:
    """The settings with everything derived that was left open; ``block_tokens`` see ``micro_batch.py``."""
    train = config.train
    per_epoch, total = steps_in(phase.train.item_lengths, phase.batch_tokens, phase.epochs, phase.mix)
    plan = Plan(
        seed=train.seed,
        batch_tokens=phase.batch_tokens,
        block_tokens=block_tokens,
        steps_per_epoch=per_epoch,
        total_steps=total,
        warmup_steps=max(1, round(total * phase.warmup_share)),
        learning_rate=phase.learning_rate,
        schedule=phase.schedule,
        clip=train.clip,
        validate_every=train.validate_every or max(1, round(per_epoch / VALIDATIONS_PER_EPOCH)),
        patience=train.patience,
        minutes=phase.minutes,
    )
    if phase.name != "pretrain" or train.validate_every is not None:
        return plan
    validations = min(PRETRAINING_VALIDATIONS, max(FEWEST_VALIDATIONS, total // STEPS_BETWEEN_VALIDATIONS))
    return replace(plan, validations=validations, validate_every=max(1, round(total / validations)))


def _what_to_compile(
    config: Config, phase: Phase, plan: Plan, choice: Decisions, model: Any, flops: float
) -> dict[str, Any]:
    """Layers where text is read in rows of one length, else norms and gates, or nothing. ``model``: its settings."""
    lengths, setting = phase.train.item_lengths, config.train.compile
    possible = phase.name == "pretrain" and distributed.join().alone and choice.attention == "packed"
    if possible and decisions.may_compile_layers(setting, choice):  # before an epoch is laid out for it
        sizes = {"batch_tokens": plan.batch_tokens, "block_tokens": plan.block_tokens}
        shape = usual_block(lengths, pack(lengths, **sizes, seed=plan.seed, epoch=0, mix=phase.mix))
        if shape and decisions.worth_compiling_layers(setting, choice, model, shape, flops, phase.minutes):
            return {"compile": False, "compile_layers": shape}
    return {"compile": decisions.worth_compiling(setting, choice, flops, phase.minutes), "compile_layers": None}


def make_optimizer(model: Any, phase: Phase, dtype: str, world: World = ALONE) -> Optimizer:
    """The optimiser of a phase; ``dtype``: that the model computes in."""
    return Optimizer(
        model,
        weight_decay=phase.weight_decay,
        kind=phase.optimizer,
        betas=phase.betas,
        momentum=phase.momentum,
        dtype=getattr(torch, dtype),
        world=world,
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
    tokenizer = load_tokenizer(inputs["tokenizer"])
    check_vocabulary(model, tokenizer, inputs["base"])
    save_weights = prepare(model, config, world, dtype=choice.dtype)
    attention = "packed" if can_pack(model) else "padded"
    choice = decided(lambda: decisions.keep(directory, attention=attention))
    together = world.shard(model, dtype=choice.dtype, whole_base=choice.base == "whole")
    plan = make_plan(config, with_room(config, phase), choice.block_tokens)
    rescue = Rescue(model, directory, choice, block_tokens=plan.block_tokens, setting=config.train.activations)
    optimizer = make_optimizer(model, phase, choice.dtype, world)
    if before is not None:
        optimizer.load_masters(checkpoint.Saved(before.best))
    valid = validation_items(phase.valid, validation_budget(phase.epoch_tokens, plan))
    objective: Objective = Likelihood()
    show: Callable[[int, bool], object] = nobody
    if phase.name == "pretrain":
        objective = Likelihood(text_bytes(tokenizer, valid))
        prompts = sample_prompts(phase.valid, TokenStore(inputs["tokens"] / "valid"))
        show = Samples(together, tokenizer, prompts, directory, world, in_a_hurry=phase.minutes is not None).write
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
        flops *= plan.total_steps * phase.epoch_tokens / plan.steps_per_epoch
        compiles = _what_to_compile(config, phase, plan, choice, model.config, flops)
        choice = decided(lambda: decisions.keep(directory, **compiles))
    with (
        compiled_kernels(bool(choice.compile), choice.dtype, choice.device),
        compiled_layers(model, choice.compile_layers, choice.dtype),
        follow(config, directory, asdict(plan)) if world.first else nullcontext() as trackers,
    ):
        state = run_loop(
            together, objective, optimizer, phase.train, valid, plan, directory,
            save_weights=save_weights, stop=stop, rescue=rescue, world=world, trackers=trackers, mix=phase.mix,
            show=show, decided=choice.planned,
            replan=lambda rows: decided(lambda: decisions.keep(directory, planned=tuple(rows))),
        )  # fmt: skip
    validations = {row["step"]: row for row in read_lines(directory / "metrics.jsonl") if "validation_loss" in row}
    figures = {
        "objective": phase.preference or "likelihood",
        "optimizer": phase.optimizer,
        "device": choice.device,
        "dtype": choice.dtype,
        "attention": choice.attention,
        "compile": choice.compile,
        "compile_layers": choice.compile_layers,
        "threads": choice.threads,
        "processes": world.size,
        "shared_base": choice.base,
        "trained_weights": optimizer.num_trained,
        "steps": state.step,
        "epochs": round(state.step / plan.steps_per_epoch, 2),
        "tokens": state.tokens,
        "trained_tokens": phase.train.trained_tokens - (phase.replay or {}).get("trained_tokens", 0),
        "replay": phase.replay,
        "tokens_per_second": round(state.tokens / state.step_seconds, 1),
        "seconds": round(state.seconds, 1),
        "peak_memory_bytes": memory.peak_bytes(),
        "best_step": state.best_step,
        "best_loss": state.best_loss,
        "base_loss": validations.get(0, {}).get("validation_loss"),
        "before": _validated(validations.get(0, {})),
        "best": _validated(validations.get(state.best_step, {})),
        "stopped": state.stopped or _decayed(state, plan),
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


def _decayed(state: checkpoint.State, plan: Plan) -> str:
    if not state.decay_from:
        return ""
    what = f"validation loss had not fallen for {plan.patience} validations"
    return f"{what}, so the rate fell from step {state.decay_from}"


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
