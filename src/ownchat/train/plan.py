"""What training would take, said before it begins: memory by part, time, tokens, money.

The formula is :mod:`ownchat.model.account` times what the data are (:mod:`ownchat.train.workload`,
:mod:`ownchat.train.speed`); three real steps (:mod:`ownchat.train.probe`) correct it on this machine. For another
machine the formula stands alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ownchat.config import Config
from ownchat.errors import RunError
from ownchat.model import account as accounts
from ownchat.model.account import Account
from ownchat.model.block import shares_prefix_on
from ownchat.tokenizer.store import TokenStore
from ownchat.train import decisions, memory, micro_batch, speed
from ownchat.train import probe as probing
from ownchat.train.devices import device_named
from ownchat.train.phases import Phase, make_plan, phases_of
from ownchat.train.schedule import Plan
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
    phases: list[dict[str, Any]]  # name, objective, steps, epochs, tokens, trained_tokens, validations, seconds of each
    steps: int  # of all phases, as the sums that follow
    epochs: float  # of the first phase
    tokens: int
    trained_tokens: int
    validations: int  # those before the first steps included
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
    phases = phases_of(config, inputs["tokens"], inputs["base"])
    test = TokenStore(inputs["tokens"] / "test")
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
    shards = 1 if device is None else machine.count

    def plan_of(phase: Phase) -> Plan:
        longest = int(phase.train.item_lengths.max())
        largest = config.train.block_tokens or micro_batch.fitting_block_tokens(
            account, choice.device, longest, available, processes=shards
        )
        return make_plan(config, phase, largest)

    plans = [plan_of(phase) for phase in phases]
    loads = [
        _load(phase, plan, choice.device, packed=account.packed) for phase, plan in zip(phases, plans, strict=True)
    ]
    each = [accounts.memory(account, load.largest, device=choice.device, shards=shards) for load in loads]
    needed, load = max(each, key=lambda memory: memory.peak), loads[0]
    formula = speed.speed_on(device, account) if device is not None else speed.speed_here(choice, account)
    notes, found, measured, fast = [], None, {}, formula
    usable = int(micro_batch.USABLE[choice.device] * available)
    by_formula = micro_batch.with_allocator(needed, choice.device, load.steps)
    if scratch is not None and needed.fixed > usable:
        notes.append("not probed: by the formula not even the weights and the optimiser fit")
    elif scratch is not None:
        try:
            found = probing.measure(config, inputs, plans[0], choice, probing.steps_to_probe(load), scratch)
        except RunError as error:
            notes.append(f"{error.what}: training would go on in smaller blocks, and more slowly")
        else:
            if found.packed != account.packed:
                loads = [
                    _load(phase, plan, choice.device, packed=found.packed)
                    for phase, plan in zip(phases, plans, strict=True)
                ]
            fast = probing.speed(found, account, formula)
            more = micro_batch.growth(load.steps, choice.device)
            measured = probing.parts(found, each[0], before, more)
            larger = needed.peak / each[0].peak  # a later phase's largest block
            measured |= {name: int(larger * measured[name]) for name in ("activations", "peak") if larger > 1}
    peak = measured.get("peak", by_formula.peak)
    asked = [
        speed.Asked(load, phase.minutes, _reference(phase, account, choice.device))
        for phase, load in zip(phases, loads, strict=True)
    ]
    seconds = speed.seconds_of(account, asked, fast, config, test, shards)
    by_hand = speed.seconds_of(account, asked, formula, config, test, shards)
    hours = seconds["total"] / 3600 * machine.count
    fits = peak <= usable and (scratch is None or found is not None)
    return Forecast(
        machine={"device": machine.device or choice.device, "count": machine.count, "dtype": choice.dtype,
                 "threads": choice.threads, "speed": fast.source},
        model={"base": str(inputs["base"]), "method": config.train.method, "parameters": account.parameters,
               "trained": account.trained},
        data={"documents": sum(len(phase.train) for phase in phases),
              "tokens": sum(phase.train.num_tokens for phase in phases),
              "longest": max(int(phase.train.item_lengths.max()) for phase in phases),
              "validation_tokens": loads[0].validation_tokens},
        phases=[
            {"name": phase.name, "objective": phase.preference or "likelihood", "steps": load.steps,
             "epochs": phase.epochs, "tokens": load.tokens, "trained_tokens": load.trained_tokens,
             "validations": load.validations,
             "seconds": round(speed.training_seconds(account, one, fast, shards)["training"], 2)}
            for phase, load, one in zip(phases, loads, asked, strict=True)
        ],
        steps=sum(load.steps for load in loads),
        epochs=phases[0].epochs,
        tokens=sum(load.tokens for load in loads),
        trained_tokens=sum(load.trained_tokens for load in loads),
        validations=sum(load.validations for load in loads),
        block_tokens=max(plan.block_tokens for plan in plans),
        largest_block=max(max(load.largest_tokens) for load in loads),
        flops=float(sum(accounts.training_flops(account, load.work)
                        + load.validations * accounts.forward_flops(account, load.validation) for load in loads)),
        memory=micro_batch.as_parts(by_formula),
        measured_memory=measured,
        peak_bytes=peak,
        available_bytes=available,
        fits=fits,
        seconds=seconds,
        formula_seconds=by_hand,
        tokens_per_second=(
            round(sum(load.tokens for load in loads) / seconds["steps"], 1) if seconds["steps"] else 0.0
        ),
        money=None if machine.price is None else round(hours * machine.price, 2),
        notes=[*notes, *_assumptions(config, machine, loads, found is not None)],
        advice=[] if fits else micro_batch.advice(config, needed, available, choice.device),
    )  # fmt: skip


def _load(phase: Phase, plan: Plan, device: str, *, packed: bool) -> Workload:
    documents = validation_documents(phase.valid, validation_budget(phase.epoch_tokens, plan))
    return workload(phase.train, documents, plan, packed=packed, share_prefix=shares_prefix_on(device), mix=phase.mix)


def _reference(phase: Phase, account: Account, device: str) -> float:
    """FLOPs of what a preference phase computes once, before its first step: all replies by the model before.

    KTO has every reply twice, and again after other prompts in each step.
    """
    if phase.preference in (None, "orpo"):
        return 0.0
    share, total = shares_prefix_on(device), 0.0
    for store in (phase.train, phase.valid):
        for number in range(len(store.item_lengths)):
            size = accounts.size_of(store.item(number).documents, packed=account.packed, share_prefix=share)
            total += accounts.forward_flops(account, size)
    return total if phase.preference == "dpo" else (2 + phase.epochs) * total


def _assumptions(config: Config, machine: Machine, loads: Sequence[Workload], probed: bool) -> list[str]:
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
        if any(load.num_blocks < machine.count * load.steps for load in loads):
            notes.append("a step has fewer blocks than there are devices: raise train.batch_tokens to keep them busy")
    return notes
