"""Three real optimiser steps on this machine, to correct a plan: in a process of its own, which leaves nothing behind.

    python -m ownchat.train.probe < request.json

Real data, model, method and type, through the functions of training: one validation block, three steps (the largest
block of all, the longest document and a typical step among them), one checkpoint into a folder that is removed.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ownchat.config import Config
from ownchat.errors import RunError, UserError
from ownchat.model import account as accounts
from ownchat.model.account import Account, BlockSize, Memory
from ownchat.train.decisions import Decisions
from ownchat.train.schedule import Plan
from ownchat.train.speed import Speed
from ownchat.train.workload import Workload

STEPS = 3
NO_MEMORY = 3  # exit code


@dataclass(frozen=True)
class Probe:
    """What was measured. Bytes are resident memory (on a GPU: allocated)."""

    libraries_bytes: int  # before the model was loaded
    step_peak_bytes: int  # loading included
    peak_bytes: int  # the checkpoint, too
    load_seconds: float
    validation_seconds: float
    validation: BlockSize
    step_seconds: tuple[float, ...]
    steps: tuple[BlockSize, ...]
    checkpoint_seconds: float
    packed: bool


def steps_to_probe(load: Workload) -> list[int]:
    """The step with the largest block, a typical one and that with the longest document; none twice if it can be."""
    largest, longest = load.candidates[0][0], load.candidates[-1][0]
    chosen = list(dict.fromkeys([largest, load.steps // 2, longest]))
    others = (step for step in range(load.steps) if step not in chosen)
    while len(chosen) < STEPS:
        chosen.append(next(others, largest))
    return chosen


def measure(
    config: Config, inputs: dict[str, Path], plan: Plan, choice: Decisions, steps: Sequence[int], scratch: Path
) -> Probe:
    """Run the probe in a process of its own; ``scratch``: a folder on the disk where checkpoints will be.

    Raises :class:`~ownchat.errors.UserError` with the process's own message, and
    :class:`~ownchat.errors.RunError` when it was ended for lack of memory.
    """
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=scratch) as directory:
        request = {
            "config": config.model_dump(),
            "inputs": {name: str(path) for name, path in inputs.items()},
            "plan": asdict(plan),
            "choice": asdict(choice),
            "steps": list(steps),
            "directory": directory,
        }
        command = [sys.executable, "-m", "ownchat.train.probe"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, errors = process.communicate(json.dumps(request).encode())
        finally:
            process.kill()
            process.wait()
    if process.returncode == 2:
        raise UserError(errors.decode(errors="replace").strip().splitlines()[-1])
    if process.returncode in (NO_MEMORY, -signal.SIGKILL):  # Linux kills the process that takes the last pages
        raise RunError("out of memory in three steps that were tried", fix="see ownchat plan --no-probe")
    if process.returncode:
        raise RuntimeError(f"the probe failed:\n{errors.decode(errors='replace')}")
    return read(json.loads(out.decode().splitlines()[-1]))


def read(found: dict[str, Any]) -> Probe:
    """A probe from its JSON."""
    sizes = {"validation": BlockSize(**found["validation"]), "steps": tuple(BlockSize(**s) for s in found["steps"])}
    return Probe(**{**found, **sizes, "step_seconds": tuple(found["step_seconds"])})


def speed(probe: Probe, account: Account, formula: Speed) -> Speed:
    """The formula's speeds, corrected. The first step is told apart: it takes pages and starts kernels for all."""
    work = [accounts.training_flops(account, size) for size in probe.steps]
    rate = sum(work[1:]) / sum(probe.step_seconds[1:])
    forward = accounts.forward_flops(account, probe.validation) / probe.validation_seconds
    return Speed(
        training=rate,
        forward=forward,
        first_step_seconds=max(0.0, probe.step_seconds[0] - work[0] / rate),
        load_seconds=probe.load_seconds,
        checkpoint_seconds=probe.checkpoint_seconds,
        float32=formula.float32,
        source=f"{STEPS} steps on this machine",
    )


def parts(probe: Probe, formula: Memory, before: int, growth: float) -> dict[str, int]:
    """Bytes by part, corrected. Weights, gradients and the optimiser's state are what they are; libraries are measured,
    and what a step takes beyond all these are its activations and what the allocator holds for them.

    ``before``: what a process holds that ran the stages before training, as the one that trains does. ``growth``: of
    what is held for activations, over the steps to come.
    """
    exact = formula.weights + formula.adapter + formula.masters + formula.gradients + formula.optimizer + formula.head
    activations = max(0, probe.step_peak_bytes - probe.libraries_bytes - exact)
    libraries = max(before, probe.libraries_bytes)
    more = libraries - probe.libraries_bytes
    peak = max(probe.peak_bytes + more, libraries + exact + int(growth * activations))
    return asdict(formula) | {"libraries": libraries, "activations": int(growth * activations), "peak": peak}


def run(request: dict[str, Any]) -> Probe:
    """The probe itself, in its own process."""
    import torch

    from ownchat.model.activations import use_activations
    from ownchat.model.block import shares_prefix_on
    from ownchat.model.load import can_pack, load_model
    from ownchat.model.score import score_documents
    from ownchat.train import checkpoint, memory, phases
    from ownchat.train.loop import Batches, train_step
    from ownchat.train.objectives import Likelihood, documents_of
    from ownchat.train.validation import validation_budget, validation_documents
    from ownchat.train.workload import validation_blocks

    config, plan, choice = Config(**request["config"]), Plan(**request["plan"]), Decisions(**request["choice"])
    inputs = {name: Path(path) for name, path in request["inputs"].items()}
    memory.keep_freed_pages()
    memory.reset_peak()
    torch.set_num_threads(choice.threads)
    phase = phases.phases_of(config, inputs["tokens"], inputs["base"])[0]
    train, valid = phase.train, phase.valid
    libraries = memory.held_bytes()
    start = time.monotonic()
    model = load_model(inputs["base"], dtype=choice.dtype, packed=True, quantize=config.model.quantize)
    use_activations(model, choice.activations)
    save_weights = phases.prepare(model, config)
    optimizer = phases.make_optimizer(model, phase, choice.dtype)
    load_seconds = time.monotonic() - start
    packed, share = can_pack(model), shares_prefix_on(choice.device)

    documents = validation_documents(valid, validation_budget(phase.epoch_tokens, plan))
    block = max(validation_blocks(documents, plan.block_tokens), key=lambda block: sum(len(ids) for ids, _ in block))
    start = time.monotonic()
    score_documents(model, block, block_tokens=plan.block_tokens)
    validation_seconds = time.monotonic() - start

    batches, seconds, sizes = Batches(train.item_lengths, plan, phase.mix), [], []
    for step in request["steps"]:
        start = time.monotonic()
        blocks = [[train.item(number) for number in numbers] for numbers in batches.at(step, plan.block_tokens)]
        train_step(model, Likelihood(), optimizer, blocks, plan.learning_rate, plan.clip)
        seconds.append(time.monotonic() - start)
        step_sizes = [accounts.size_of(documents_of(items), packed=packed, share_prefix=share) for items in blocks]
        sizes.append(
            BlockSize(*(sum(values) for values in zip(*(asdict(s).values() for s in step_sizes), strict=True)))
        )
    step_peak = memory.peak_bytes()
    start = time.monotonic()
    checkpoint.save(Path(request["directory"]), checkpoint.State(), optimizer.state(), save_weights)
    return Probe(
        libraries_bytes=libraries,
        step_peak_bytes=step_peak,
        peak_bytes=memory.peak_bytes(),
        load_seconds=load_seconds,
        validation_seconds=validation_seconds,
        validation=accounts.size_of(block, packed=packed, share_prefix=share),
        step_seconds=tuple(seconds),
        steps=tuple(sizes),
        checkpoint_seconds=time.monotonic() - start,
        packed=packed,
    )


def main() -> None:
    """The process: a request on standard input, what was found on the last line of standard output."""
    from ownchat.model.out_of_memory import is_out_of_memory
    from ownchat.train.rescue import OutOfMemory

    try:
        found = run(json.load(sys.stdin))
    except UserError as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
            raise
        sys.exit(NO_MEMORY)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
