"""THE loop: one for supervised fine-tuning, continued pre-training, and whatever objective comes next.

Everything that happens in a step is a function of (seed, step) and the state in the last checkpoint, so that an
interrupted run goes on exactly where it was. Order of effects: train, log, validate, save, stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ownchat.errors import Interrupted, RunError
from ownchat.model.block import Block, Document, blocks_for
from ownchat.model.lora import forget_outputs
from ownchat.model.out_of_memory import Guard, first_line, is_out_of_memory
from ownchat.model.score import score_documents
from ownchat.monitor.events import Events, Heartbeat, JsonLines, read_lines
from ownchat.monitor.progress import progress
from ownchat.tokenizer.packing import Step, num_steps, pack
from ownchat.tokenizer.store import TokenStore
from ownchat.train import checkpoint
from ownchat.train.checkpoint import State
from ownchat.train.memory import Heap
from ownchat.train.objectives import Objective
from ownchat.train.optim import Optimizer, learning_rate
from ownchat.train.rescue import OutOfMemory, Rescue
from ownchat.train.signals import StopRequest

MEASURED_STEPS = 4  # after these the speed is known well enough to plan for train.minutes


@dataclass(frozen=True)
class Plan:
    """Every number the loop goes by, derived ones included."""

    seed: int
    batch_tokens: int
    block_tokens: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    learning_rate: float
    schedule: Literal["cosine", "linear", "constant"]
    clip: float
    validate_every: int
    patience: int
    minutes: float | None

    def with_total(self, total: int) -> Plan:
        """The same plan in fewer steps: the schedule ends where the steps end."""
        return replace(self, total_steps=total, warmup_steps=min(self.warmup_steps, max(1, total // 5)))


class Batches:
    """The global batch of every step: a list of blocks of document numbers. How large a block may be does not change
    which documents are in a step."""

    def __init__(self, lengths: np.ndarray, plan: Plan) -> None:
        self._lengths, self._plan, self._packed = lengths, plan, (-1, -1)
        self._steps: list[Step] = []

    def at(self, step: int, block_tokens: int) -> Step:
        """The blocks of a step, counted from 0."""
        epoch, within = divmod(step, self._plan.steps_per_epoch)
        if self._packed != (epoch, block_tokens):
            plan = self._plan
            self._steps = pack(
                self._lengths, batch_tokens=plan.batch_tokens, block_tokens=block_tokens, seed=plan.seed, epoch=epoch
            )
            self._packed = epoch, block_tokens
        return self._steps[within]


def run_loop(
    model: Any,
    objective: Objective,
    optimizer: Optimizer,
    train: TokenStore,
    valid: Sequence[Document],
    plan: Plan,
    directory: Path,
    *,
    save_weights: Callable[[Path], None],
    stop: StopRequest,
    rescue: Rescue,
    decided_total: int = 0,
    replan: Callable[[int], object] = lambda total: None,
) -> State:
    """Train until the plan is done, the time is up, or the validation loss has stopped falling.

    Writes ``events.jsonl``, ``metrics.jsonl``, ``heartbeat`` and ``checkpoints/`` into ``directory`` and goes on
    from the newest whole checkpoint there. ``replan(total_steps)`` is told when ``plan.minutes`` asks for fewer
    steps, and ``decided_total`` is what it was told before an interruption (0: nothing). ``rescue`` says how large
    blocks may be, and makes them smaller when memory runs out. Returns the final state; the best weights are in
    ``checkpoints/step-<best_step>``.

    Raises :class:`~ownchat.errors.Interrupted` after saving when a signal came, and
    :class:`~ownchat.errors.RunError` when the loss is no longer a number, or one document is more than memory holds.
    """
    events, metrics = Events(directory / "events.jsonl"), JsonLines(directory / "metrics.jsonl")
    heartbeat, saved = Heartbeat(directory / "heartbeat"), directory / "checkpoints"
    state, batches = State(), Batches(train.lengths, plan)
    if (found := checkpoint.latest(saved)) is not None:
        path, state = found
        optimizer.load(checkpoint.load_tensors(path))
    forget_after(directory / "metrics.jsonl", state.step if found else -1)
    events.emit("resumed" if found else "started", step=state.step, total_steps=plan.total_steps)
    clock, heap = time.monotonic() - state.seconds, Heap()

    if decided_total and state.step >= MEASURED_STEPS:
        plan = plan.with_total(decided_total)

    def validate() -> float:
        def halved(old: int, new: int, why: str) -> None:
            rescue.validation_failed(state.step, old, new, why, events)

        block_tokens, scores = 0, []
        while block_tokens != rescue.block_tokens(state.step, "validate"):
            # scores that were made in larger blocks before a rescue are made again, so that a resume finds the same
            block_tokens = rescue.block_tokens(state.step, "validate")
            scores = score_documents(
                model, valid, block_tokens=block_tokens, guard=rescue.guard, on_halved=halved
            )  # fmt: skip
        loss = -float(np.concatenate(scores).mean())
        state.seconds = time.monotonic() - clock
        metrics.write(step=state.step, validation_loss=loss, seconds=round(state.seconds, 2))
        events.emit("validated", step=state.step, validation_loss=loss)
        return loss

    def fitting_step(rate: float) -> tuple[float, float, int, float]:
        """Loss, norm, tokens and seconds of the next step, in blocks that fit into memory."""
        while True:
            began, number = time.monotonic(), state.step + 1
            rescue.activations(number)
            blocks = batches.at(state.step, rescue.block_tokens(number))
            documents = [[train[number] for number in block] for block in blocks]
            seed = plan.seed * 1_000_003 + state.step  # dropout, where a model has it, is the same after a resume
            try:
                done = train_step(
                    model, objective, optimizer, documents, rate, plan.clip, seed=seed, guard=rescue.guard
                )  # fmt: skip
                return *done, time.monotonic() - began
            except OutOfMemory as error:
                failed = error.with_traceback(None)  # which would hold what the step allocated
            optimizer.drop_gradients()
            heartbeat.beat(state.step)
            rescue.step_failed(number, [[len(ids) for ids, _ in block] for block in documents], failed, events)

    def save() -> None:
        state.seconds = time.monotonic() - clock
        checkpoint.save(saved, state, optimizer.state(), save_weights)
        checkpoint.clear_old(
            saved, best_step=state.best_step, last_step=state.step, steps_per_epoch=plan.steps_per_epoch
        )
        events.emit("saved", step=state.step)

    with progress("train", plan.total_steps, "steps") as advance:
        advance(state.step)
        if state.step == 0:
            heartbeat.beat(0, force=True)
            validate()  # the base: what every later figure is compared with
        while state.step < plan.total_steps and not state.stopped:
            rate = learning_rate(
                state.step, peak=plan.learning_rate, total=plan.total_steps, warmup=plan.warmup_steps,
                schedule=plan.schedule,
            )  # fmt: skip
            loss, norm, tokens, seconds = fitting_step(rate)
            heap.after_step()
            if not math.isfinite(loss) or not math.isfinite(norm):
                blocks = batches.at(state.step, rescue.block_tokens(state.step + 1))
                numbers = [int(number) for block in blocks for number in block]
                raise RunError(_not_a_number(state, numbers, train, events), where=str(directory), fix=_LOWER_RATE)
            state.step, state.tokens = state.step + 1, state.tokens + tokens
            state.step_seconds += seconds
            metrics.write(
                step=state.step, loss=loss, learning_rate=rate, gradient_norm=norm, tokens=tokens,
                tokens_per_second=round(tokens / seconds, 1), seconds=round(time.monotonic() - clock, 2),
            )  # fmt: skip
            heartbeat.beat(state.step)
            advance(1, f"loss {loss:.3f}, {state.tokens / state.step_seconds:.0f} tokens/s")
            if plan.minutes is not None and state.step == MEASURED_STEPS:
                elapsed = time.monotonic() - clock
                plan = plan.with_total(decided_total or _steps_that_fit(plan, state, elapsed))
                replan(plan.total_steps)
            last = state.step >= plan.total_steps
            if last or state.step % plan.validate_every == 0:
                _judge(state, validate(), plan)
                save()
            if stop.requested and not last and not state.stopped:
                save()
                events.emit("stopped", step=state.step, signal=stop.name)
                raise Interrupted(
                    f"{stop.name}: saved at step {state.step} of {plan.total_steps}; the same command goes on"
                )
    events.emit("finished", step=state.step, best_step=state.best_step, best_loss=state.best_loss, why=state.stopped)
    heartbeat.beat(state.step, force=True)
    return state


def train_step(
    model: Any,
    objective: Objective,
    optimizer: Optimizer,
    blocks: Sequence[Sequence[Document]],
    rate: float,
    clip: float,
    *,
    seed: int = 0,
    guard: Guard | None = None,
) -> tuple[float, float, int]:
    """One optimiser step over a global batch; returns (loss, gradient norm before clipping, real tokens).

    loss = sum of coefficient * term / global count: cutting the batch into other blocks changes nothing.

    Raises :class:`~ownchat.train.rescue.OutOfMemory` when memory runs out, or when ``guard`` says that it soon will;
    the weights are as they were then, and the gradient is to be dropped.
    """
    batch = [document for block in blocks for document in block]
    counts = objective.counts(batch)
    total, tokens, failed = torch.zeros((), dtype=torch.float64, device=model.device), 0, ""
    working: Sequence[Document] = max(blocks, key=len)  # what memory is needed for
    model.train()
    try:
        context, made = objective.prepare(model, batch), blocks_for(model, blocks)
        for number, documents in enumerate(blocks):
            working = documents
            if len(documents) > 1 and guard is not None and guard.short():
                failed = "little is left"
                break
            torch.manual_seed(seed * 1_009 + number)
            block = next(made)
            if len(block.targets):  # else context only: nothing to learn from, and nothing lost
                total += _add_gradient(model, objective, block, counts, context)
            tokens += block.num_tokens
        else:
            working = max(blocks, key=len)
            loss, norm = float(total), optimizer.clip(clip)  # the first numbers that are read: a GPU is waited for here
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        failed = first_line(error)
    if failed:
        forget_outputs(model)
        # raised out here: what is raised inside holds the error before it, and that one the block's tensors
        raise OutOfMemory(failed, documents=len(working), tokens=sum(len(ids) for ids, _ in working))
    if math.isfinite(loss) and math.isfinite(norm):
        optimizer.step(rate)
    return loss, norm, tokens


def _add_gradient(model: Any, objective: Objective, block: Block, counts: dict[str, int], context: Any) -> torch.Tensor:
    """Forward and backward of one block; returns its share of the loss."""
    terms = objective.terms(model, block, context)
    loss = torch.stack([objective.coefficients[name] * term / counts[name] for name, term in terms.items()]).sum()
    loss.backward()
    return loss.detach()


def steps_in(lengths: np.ndarray, batch_tokens: int, epochs: float) -> tuple[int, int]:
    """(steps of one epoch, steps of ``epochs`` epochs)."""
    per_epoch = num_steps(lengths, batch_tokens)
    return per_epoch, max(1, math.ceil(per_epoch * epochs - 1e-9))


def forget_after(path: Path, step: int) -> None:
    """Take away lines of steps that the checkpoint does not know: they will be written again."""
    if path.is_file():
        kept = [row for row in read_lines(path) if row["step"] <= step]
        path.unlink()
        writer = JsonLines(path)
        for row in kept:
            writer.write(**row)


_LOWER_RATE = "lower train.learning_rate, or look at the records named above; the last good checkpoint is kept"


def _judge(state: State, loss: float, plan: Plan) -> None:
    """Best so far, or one more validation without gain?"""
    if loss < state.best_loss:
        state.best_loss, state.best_step, state.validations_without_gain = loss, state.step, 0
        return
    state.validations_without_gain += 1
    if state.validations_without_gain >= plan.patience and state.step < plan.total_steps:
        state.stopped = f"validation loss has not fallen for {plan.patience} validations"


def _steps_that_fit(plan: Plan, state: State, elapsed: float) -> int:
    """As many steps as fit in ``plan.minutes`` at the speed so far, validations included (one was made by now)."""
    assert plan.minutes is not None
    validation = max(0.0, elapsed - state.step_seconds)
    each = state.step_seconds / state.step + validation / plan.validate_every
    return min(plan.total_steps, state.step + max(0, int((plan.minutes * 60 - elapsed - validation) / each)))


def _not_a_number(state: State, numbers: list[int], train: TokenStore, events: Events) -> str:
    index = train.index()
    records = [index[number]["record"] for number in numbers]
    events.emit("not_finite", step=state.step + 1, records=records)
    return f"the loss of step {state.step + 1} is not a number; its batch holds records {', '.join(records[:5])} ..."
