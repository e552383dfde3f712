"""What training would take, said before it begins: memory by part, time, tokens, money.

The formula is :mod:`ownchat.model.account` times what the data are (:mod:`ownchat.train.workload`,
:mod:`ownchat.train.speed`); three real steps (:mod:`ownchat.train.probe`) correct it on this machine. For another
machine the formula stands alone.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ownchat.config import Config
from ownchat.errors import RunError
from ownchat.model import account as accounts
from ownchat.model.block import shares_prefix_on
from ownchat.tokenizer.store import TokenStore
from ownchat.train import decisions, memory, micro_batch, speed
from ownchat.train import probe as probing
from ownchat.train.devices import device_named
from ownchat.train.phases import Phase, make_plan, phases_of
from ownchat.train.validation import validation_budget, validation_documents
from ownchat.train.workload import Workload, workload


@dataclass(frozen=True)
class Machine:
    """Where it is to be trained. ``device`` none: here. ``price``: money for one device and hour."""

    device: str | None = None
    count: int = 1
    price: float | None = None


@dataclass(frozen=True)
class Forecast:
    """The plan as it is printed and written as JSON; plain numbers, bytes and seconds."""

    machine: dict[str, Any]  # device, count, dtype, what its speed is known from
    model: dict[str, Any]  # base, method, parameters, trained
    data: dict[str, Any]  # documents, tokens of an epoch, longest document, validation tokens
    steps: int
    epochs: float
    tokens: int  # of all steps
    trained_tokens: int
    validations: int  # the base's included
    block_tokens: int  # the most in one forward pass,
    largest_block: int  # and what the largest block really holds
    flops: float
    memory: dict[str, int]  # bytes by part, by the formula
    measured_memory: dict[str, int]  # the same, corrected by the probe; empty without one
    peak_bytes: int
    available_bytes: int
    fits: bool
    seconds: dict[str, float]  # by part; "training" is the loop, "total" the whole command
    formula_seconds: dict[str, float]
    tokens_per_second: float
    money: float | None
    notes: list[str] = field(default_factory=list)  # what is assumed
    advice: list[str] = field(default_factory=list)  # what would make it fit

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def forecast(config: Config, inputs: dict[str, Path], machine: Machine, *, scratch: Path | None) -> Forecast:
    """The plan for stages that are there; ``scratch``: where the probe may write; none: no probe."""
    before = memory.held_bytes()
    phase, *later = phases_of(config, inputs["tokens"])
    train, valid, test = phase.train, phase.valid, TokenStore(inputs["tokens"] / "test")
    device = None if machine.device is None else device_named(machine.device)
    if device is None:
        with tempfile.TemporaryDirectory() as directory:
            choice = decisions.decide(config, Path(directory))
        torch.set_num_threads(choice.threads)
        available = memory.available_bytes()
    else:
        choice = speed.decisions_on(device, config)
        available = int(device.gigabytes * 1e9)
    account = micro_batch.account_of(config, inputs["base"], choice)
    longest = int(train.item_lengths.max())
    shards = 1 if device is None else machine.count
    largest = config.train.block_tokens or micro_batch.fitting_block_tokens(
        account, choice.device, longest, available, processes=shards
    )
    steps = make_plan(config, phase, largest)
    documents = validation_documents(valid, validation_budget(train.num_tokens, steps))
    share = shares_prefix_on(choice.device)
    load = workload(train, documents, steps, packed=account.packed, share_prefix=share)
    needed = accounts.memory(account, load.largest, device=choice.device, shards=shards)
    formula = speed.speed_on(device, account) if device is not None else speed.speed_here(choice, account)
    notes, found, measured, fast = [], None, {}, formula
    usable = int(micro_batch.USABLE[choice.device] * available)
    by_formula = micro_batch.with_allocator(needed, choice.device, load.steps)
    if scratch is not None and needed.fixed > usable:
        notes.append("not probed: by the formula not even the weights and the optimiser fit")
    elif scratch is not None:
        try:
            found = probing.measure(config, inputs, steps, choice, probing.steps_to_probe(load), scratch)
        except RunError as error:
            notes.append(f"{error.what}: training would go on in smaller blocks, and more slowly")
        else:
            if found.packed != account.packed:
                load = workload(train, documents, steps, packed=found.packed, share_prefix=share)
            fast = probing.speed(found, account, formula)
            more = micro_batch.growth(load.steps, choice.device)
            measured = probing.parts(found, needed, before, more)
    peak = measured.get("peak", by_formula.peak)
    seconds = speed.seconds_of(account, load, fast, config, test, shards)
    by_hand = speed.seconds_of(account, load, formula, config, test, shards)
    hours = seconds["total"] / 3600 * machine.count
    fits = peak <= usable and (scratch is None or found is not None)
    return Forecast(
        machine={"device": machine.device or choice.device, "count": machine.count, "dtype": choice.dtype,
                 "threads": choice.threads, "speed": fast.source},
        model={"base": str(inputs["base"]), "method": config.train.method, "parameters": account.parameters,
               "trained": account.trained},
        data={"documents": len(train), "tokens": train.num_tokens, "longest": longest,
              "validation_tokens": sum(len(ids) for ids, _ in documents)},
        steps=load.steps,
        epochs=phase.epochs,
        tokens=load.tokens,
        trained_tokens=load.trained_tokens,
        validations=load.validations,
        block_tokens=largest,
        largest_block=max(load.largest_tokens),
        flops=float(accounts.training_flops(account, load.work)
                    + load.validations * accounts.forward_flops(account, load.validation)),
        memory=micro_batch.as_parts(by_formula),
        measured_memory=measured,
        peak_bytes=peak,
        available_bytes=available,
        fits=fits,
        seconds=seconds,
        formula_seconds=by_hand,
        tokens_per_second=round(load.tokens / seconds["steps"], 1) if seconds["steps"] else 0.0,
        money=None if machine.price is None else round(hours * machine.price, 2),
        notes=[*notes, *_not_counted(phase, later), *_assumptions(config, machine, load, found is not None)],
        advice=[] if fits else micro_batch.advice(config, needed, available, choice.device),
    )  # fmt: skip


def _assumptions(config: Config, machine: Machine, load: Workload, probed: bool) -> list[str]:
    notes = ["early stopping may end it sooner: the time is an upper bound"]
    if config.train.minutes is not None:
        notes.append(f"train.minutes ends it after {config.train.minutes:g} min, with fewer steps where needed")
    if not probed:
        notes.append("by the formula alone, without three steps tried: good for the order of magnitude")
    notes.append("export and evaluation are by the formula alone")
    if machine.count > 1:
        notes.append(
            f"the blocks of a step are shared by {machine.count} devices; in full training weights, gradients and "
            "moments as well (FSDP2); what they tell each other is not counted (docs/scaling.md)"
        )
        if load.num_blocks < machine.count * load.steps:
            notes.append("a step has fewer blocks than there are devices: raise train.batch_tokens to keep them busy")
    return notes


def _not_counted(phase: Phase, later: list[Phase]) -> list[str]:
    notes = []
    if phase.preference is not None:
        notes.append("preferences: the reference, one pass over all replies before the first step, is not counted")
    if later:
        notes.append("the preference phase that follows is not counted")
    return notes
