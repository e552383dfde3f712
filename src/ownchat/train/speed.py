"""How long training takes: what a device does in a second, times what the account says there is to do."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ownchat.config import Config
from ownchat.model import account as accounts
from ownchat.model.account import Account, BlockSize
from ownchat.tokenizer.store import TokenStore
from ownchat.train.decisions import Decisions, decide
from ownchat.train.devices import Device
from ownchat.train.workload import Workload


@dataclass(frozen=True)
class Speed:
    """How fast the parts go, and where that is known from."""

    training: float  # FLOP/s of a step
    forward: float  # FLOP/s of validation
    block_seconds: float = 0.0  # at least, for each block: what a GPU needs to start its kernels
    first_step_seconds: float = 0.0  # what the first step takes longer
    load_seconds: float = 0.0
    checkpoint_seconds: float = 0.0
    float32: float = 0.0  # FLOP/s of evaluation, which runs in float32
    source: str = "formula"


def decisions_on(device: Device, config: Config) -> Decisions:
    """What would be decided on a device of which only the figures are known."""
    dtype = device.dtype if config.model.dtype == "auto" else config.model.dtype
    wanted = config.train.activations
    activations = "keep" if wanted == "auto" else wanted
    return Decisions("cuda", dtype, 0, device.tflops / FLOAT32_SLOWER, device.tflops, activations=activations)


def training_flops_on(device: Device, config: Config) -> float:
    """FLOP/s that training does on one such device: a share of its published figure."""
    return _rate(device, 4 if decisions_on(device, config).dtype == "float32" else 2)


def _rate(device: Device, weight_bytes: int) -> float:
    slower = FLOAT32_SLOWER if weight_bytes == 4 and device.dtype != "float32" else 1
    return PUBLISHED_SHARE * device.tflops * 1e12 / slower


def speed_on(device: Device, account: Account) -> Speed:
    """What a device does by its published figures and the assumed share of them."""
    rate = _rate(device, account.weight_bytes)
    state = 12 * account.trained + 4 * (account.adapter or account.parameters)
    return Speed(
        training=rate,
        forward=rate,
        block_seconds=max(
            SECONDS_PER_LAYER * account.layers,
            account.parameters * account.weight_bytes / (device.gigabytes_per_second * 1e9),
        ),
        load_seconds=4 * account.parameters / DISK_BYTES_PER_SECOND,
        checkpoint_seconds=2 * state / DISK_BYTES_PER_SECOND,
        float32=rate if account.weight_bytes == 4 else rate / FLOAT32_SLOWER,
        source=f"{PUBLISHED_SHARE:.0%} of the published {device.tflops:g} TFLOP/s ({device.dtype}, dense), assumed",
    )


def training_flops_here(config: Config) -> float:
    """FLOP/s that training does on this machine, roughly: a share of what its matrix products do now."""
    with tempfile.TemporaryDirectory() as directory:
        choice = decide(config, Path(directory))
    tflops = choice.bfloat16_tflops if choice.dtype == "bfloat16" else choice.float32_tflops
    return PROCESSOR_SHARE[choice.dtype] * tflops * 1e12


def speed_here(choice: Decisions, account: Account) -> Speed:
    """What this processor does by the speed of its matrix products, measured when a run begins."""
    tflops = choice.bfloat16_tflops if choice.dtype == "bfloat16" else choice.float32_tflops
    share = PROCESSOR_SHARE[choice.dtype]
    state = 12 * account.trained + 4 * (account.adapter or account.parameters)
    return Speed(
        training=share * tflops * 1e12,
        forward=share * tflops * 1e12,
        block_seconds=0.0 if choice.device == "cpu" else SECONDS_PER_LAYER * account.layers,
        load_seconds=4 * account.parameters / DISK_BYTES_PER_SECOND,
        checkpoint_seconds=2 * state / DISK_BYTES_PER_SECOND,
        float32=PROCESSOR_SHARE["float32"] * choice.float32_tflops * 1e12,
        source=f"{share:.0%} of the {tflops:.2f} TFLOP/s of its matrix products, assumed",
    )


@dataclass(frozen=True)
class Asked:
    """What is asked of a phase: its workload, its limit in minutes, and FLOPs before its first step."""

    load: Workload
    minutes: float | None = None
    reference: float = 0.0


def seconds_of(
    account: Account, phases: Sequence[Asked], speed: Speed, config: Config, test: TokenStore, count: int = 1
) -> dict[str, float]:
    """Seconds by part, of all phases; ``training`` is the loop (validations and checkpoints included), ``total`` the
    command."""
    parts = {"loading": len(phases) * speed.load_seconds}
    for phase in phases:
        for name, seconds in training_seconds(account, phase, speed, count).items():
            parts[name] = parts.get(name, 0.0) + seconds
    training = parts.pop("training")
    parts["training"] = training
    parts["export"] = 4 * speed.load_seconds + 8 * account.parameters / DISK_BYTES_PER_SECOND
    parts["evaluation"] = _evaluation_seconds(account, speed, config, test)
    parts["total"] = parts["loading"] + training + parts["export"] + parts["evaluation"]
    return {name: round(value, 2) for name, value in parts.items()}


def training_seconds(account: Account, phase: Asked, speed: Speed, count: int = 1) -> dict[str, float]:
    """Seconds of one phase by part, and of all of it as ``training``."""
    load = phase.load
    share = min(count, max(1.0, load.num_blocks / load.steps))  # a step ends when all its blocks are done

    def at_least(flops: float, rate: float, blocks: int, passes: int) -> float:
        return max(flops / rate, blocks * passes * speed.block_seconds) / share

    validation = at_least(accounts.forward_flops(account, load.validation), speed.forward, load.validation_blocks, 1)
    steps = at_least(accounts.training_flops(account, load.work), speed.training, load.num_blocks, 3)
    parts = {"reference": phase.reference / speed.forward / share} if phase.reference else {}
    parts |= {
        "base validation": validation,
        "steps": steps + speed.first_step_seconds,
        "validations": validation * (load.validations - 1),
        "checkpoints": speed.checkpoint_seconds * load.checkpoints,
    }
    training = sum(parts.values())
    return parts | {"training": training if phase.minutes is None else min(training, 60 * phase.minutes)}


def _evaluation_seconds(account: Account, speed: Speed, config: Config, test: TokenStore) -> float:
    """Base (under two prompts) and tuned scored in float32, and their answers; the coarsest part of a plan."""
    scored = BlockSize(test.num_tokens, int((test.lengths**2).sum()), test.trained_tokens)
    answers = 2 * min(config.evaluate.answers, len(test)) * config.evaluate.answer_tokens
    decoded = 2 * (account.matrices + account.head) * answers / DECODING_SHARE
    return (3 * accounts.forward_flops(account, scored) + decoded) / speed.float32 if speed.float32 else 0.0


PUBLISHED_SHARE = 0.3
FLOAT32_SLOWER = 8  # than bfloat16 on tensor cores
SECONDS_PER_LAYER = 5e-4  # of one pass over one block, at least: some fifty kernels of ten microseconds
PROCESSOR_SHARE = {"bfloat16": 0.2, "float32": 0.6}
DISK_BYTES_PER_SECOND = 500e6
DECODING_SHARE = 0.1  # decoding reads all weights for a few tokens: so much of the speed of scoring
