"""Choices that are measured, made once for a run, saved, and obeyed on resume.

A resume on a busy machine would measure something else, and another compute type means other numbers: so what was
decided when the run began holds until it ends.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from ownchat import artifacts
from ownchat.config import Config
from ownchat.model.compiled import can_compile, is_compiled, layers_name
from ownchat.model.load import best_device
from ownchat.train import distributed

NAME = "decisions.json"
ALL_CORES = torch.get_num_threads()  # before a run that was told to use fewer has set it
BFLOAT16_MIN_GAIN = 1.3  # below this, bfloat16's rounding is not worth it
ASSUMED_SHARE = 0.5  # of the speed of matrix products, for a whole step
COMPILED_GAIN = 0.05  # of a step: norms and gates take a tenth of it, compiled a third of that (LOG.md)
COMPILE_SECONDS = {False: 30.0, True: 6.0}  # by whether machine code of an earlier run is there
LAYERS_GAIN, GAIN_WIDTH = 0.14, 96  # of a step, at this width; 0.08 at 512 (LOG.md)
LAYERS_SECONDS = {False: 20.0, True: 3.0}


@dataclass(frozen=True)
class Decisions:
    """What was chosen, and the figures that said so."""

    device: str
    dtype: str
    threads: int
    float32_tflops: float
    bfloat16_tflops: float
    attention: str = "undecided"  # packed | padded, known once the model is there
    block_tokens: int = 0  # most tokens in one forward pass; 0: not yet chosen
    activations: Literal["keep", "recompute", "offload"] = "keep"  # of the forward pass, when the run began
    compile: bool | None = None  # norms and gates; none: not yet chosen
    compile_layers: tuple[int, int] | None = None  # in their place, whole layers for blocks of so many rows and tokens
    base: Literal["whole", "sharded"] = "whole"  # of an adapter, among several processes
    rescues: tuple[dict[str, Any], ...] = ()  # less than that from a step on: see ownchat.train.rescue
    # What train.minutes made of the number of steps on the way: after how many, how many in all, validations in all
    planned: tuple[tuple[int, int, int], ...] = ()

    def save(self, directory: Path) -> None:
        artifacts.write_json(directory / NAME, asdict(self))


def decide(config: Config, directory: Path, *, like: Path | None = None) -> Decisions:
    """The decisions of this phase: read if they were made before, else measured and saved.

    ``like``: the directory of a phase before, whose measurements of this machine hold for this one too.
    """
    if (directory / NAME).is_file():
        return read(directory)
    if like is not None:
        kept = ("device", "dtype", "threads", "float32_tflops", "bfloat16_tflops", "activations")
        before = artifacts.read_json(like / NAME)
        decisions = Decisions(**{name: before[name] for name in kept})
        decisions.save(directory)
        return decisions
    threads = config.train.threads or cores()
    torch.set_num_threads(threads)
    device = best_device()
    slow, fast = (matmul_tflops(dtype, device) for dtype in (torch.float32, torch.bfloat16))
    dtype: str = config.model.dtype
    if dtype == "auto":
        dtype = "bfloat16" if fast > BFLOAT16_MIN_GAIN * slow else "float32"
    wanted = config.train.activations
    activations = "keep" if wanted == "auto" else wanted  # auto: until memory runs out
    decisions = Decisions(device, dtype, threads, round(slow, 3), round(fast, 3), activations=activations)
    decisions.save(directory)
    return decisions


def read(directory: Path) -> Decisions:
    """What was decided before; what only an older release wrote down is left out."""
    found = artifacts.read_json(directory / NAME)
    rows = {field.name: found[field.name] for field in fields(Decisions) if field.name in found}
    shape = rows.get("compile_layers")
    rows["compile_layers"] = None if shape is None else tuple(shape)
    return Decisions(**rows | {"planned": tuple(map(tuple, rows.get("planned", ())))})


def cores() -> int:
    """For this process: torchrun says one thread where it starts several, so what the machine has is shared."""
    here = distributed.join().local_size
    if here == 1:
        return ALL_CORES
    return max(1, (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) // here)


def keep(directory: Path, **changes: Any) -> Decisions:
    """A decision that could only be made later: saved beside the others."""
    decisions = replace(read(directory), **changes)
    decisions.save(directory)
    return decisions


def worth_compiling(setting: str, choice: Decisions, flops: float, minutes: float | None) -> bool:
    """Does a run of so many FLOPs gain more by compiled kernels than compiling takes? ``setting``: train.compile.

    What was compiled before is kept, so that a short run gains as well. ``minutes``: the run ends then in any case.
    """
    if setting != "auto":
        return setting == "on"
    if can_compile(choice.device) is not None:
        return False
    return _seconds(choice, flops, minutes) * COMPILED_GAIN > COMPILE_SECONDS[is_compiled(choice.dtype, choice.device)]


def may_compile_layers(setting: str, choice: Decisions) -> bool:
    """Whole layers: on a processor, in float32, with all activations kept. Elsewhere it was not measured."""
    where = (choice.device, choice.dtype, choice.activations)
    return setting != "off" and where == ("cpu", "float32", "keep") and can_compile(choice.device) is None


def worth_compiling_layers(
    setting: str, choice: Decisions, config: Any, shape: tuple[int, int], flops: float, minutes: float | None
) -> bool:
    """:func:`worth_compiling` for whole layers and blocks of one shape; ``config``: the model's."""
    if not may_compile_layers(setting, choice):
        return False
    gain = LAYERS_GAIN * min(1.0, (GAIN_WIDTH / config.hidden_size) ** (1 / 3))
    needed = LAYERS_SECONDS[is_compiled(layers_name(config, choice.dtype, shape), choice.device)]
    return setting == "on" or _seconds(choice, flops, minutes) * gain > needed


def _seconds(choice: Decisions, flops: float, minutes: float | None) -> float:
    """That a run of so many FLOPs takes, at most ``minutes``."""
    tflops = choice.bfloat16_tflops if choice.dtype == "bfloat16" else choice.float32_tflops
    return min(flops / (ASSUMED_SHARE * tflops * 1e12), math.inf if minutes is None else 60 * minutes)


def matmul_tflops(dtype: torch.dtype, device: str = "cpu") -> float:
    """TFLOP/s of the matrix products of a small transformer: forward, and the gradient of the input; best of five.

    Measured once in a process and for each number of threads: a model from nothing asks for it twice, when it gets its
    size and when its training begins.
    """
    return _measured_tflops(dtype, device, torch.get_num_threads())


@cache
def _measured_tflops(dtype: torch.dtype, device: str, threads: int, *, rows: int = 1024, width: int = 768) -> float:
    x = torch.randn(rows, width, device=device).to(dtype)
    weight = torch.randn(4 * width, width, device=device).to(dtype)
    best = float("inf")
    for _ in range(6):  # the first one warms up, and is never the best
        start = time.perf_counter()
        y = x @ weight.T
        y @ weight
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 4 * rows * width * 4 * width / best / 1e12
