"""THE loop: one for supervised fine-tuning, continued pre-training, and whatever objective comes next.

Everything that happens in a step is a function of (seed, step) and the state in the last checkpoint, so that an
interrupted run goes on exactly where it was. Order of effects: train, log, validate, save, stop.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ownchat.artifacts import write_atomic
from ownchat.errors import Interrupted, RunError
from ownchat.model.block import Block, blocks_for
from ownchat.model.lora import forget_outputs
from ownchat.model.out_of_memory import Guard, first_line, is_out_of_memory
from ownchat.monitor.events import Events, Heartbeat, JsonLines, read_lines
from ownchat.monitor.progress import progress, say
from ownchat.monitor.trackers import Trackers
from ownchat.tokenizer.packing import Mix, Step, pack
from ownchat.tokenizer.store import Item, TokenStore
from ownchat.train import checkpoint
from ownchat.train.checkpoint import Saved, State
from ownchat.train.distributed import ALONE, World, nobody
from ownchat.train.memory import Heap
from ownchat.train.objectives import Objective, documents_of
from ownchat.train.optim import Optimizer
from ownchat.train.rescue import OutOfMemory, Rescue, next_time
from ownchat.train.schedule import MEASURED_STEPS, Plan, end_moved, learning_rate, measured_at, steps_that_fit
from ownchat.train.schedule import judge as judge_validation
from ownchat.train.signals import StopRequest

RECENT_STEPS = 32  # the newer half of which says how fast it is by now: the first ones are slower
NAMED = 5  # records of a batch that an error names; all of them are in events.jsonl
SAMPLES = "samples.jsonl"  # texts that a model wrote at its validations


class Batches:
    """The global batch of every step: a list of blocks of item numbers. How large a block may be does not change
    which items are in a step."""

    def __init__(self, lengths: np.ndarray, plan: Plan, mix: Mix | None = None) -> None:
        self._lengths, self._plan, self._mix, self._packed = lengths, plan, mix, (-1, -1)
        self._steps: list[Step] = []

    def at(self, step: int, block_tokens: int) -> Step:
        """The blocks of a step, counted from 0."""
        epoch, within = divmod(step, self._plan.steps_per_epoch)
        if self._packed != (epoch, block_tokens):
            plan = self._plan
            self._steps = pack(
                self._lengths,
                batch_tokens=plan.batch_tokens,
                block_tokens=block_tokens,
                seed=plan.seed,
                epoch=epoch,
                mix=self._mix,
            )
            self._packed = epoch, block_tokens
        return self._steps[within]


def run_loop(
    model: Any,
    objective: Objective,
    optimizer: Optimizer,
    train: TokenStore,
    valid: Sequence[Item],
    plan: Plan,
    directory: Path,
    *,
    save_weights: Callable[[Path], None],
    stop: StopRequest,
    rescue: Rescue,
    mix: Mix | None = None,
    decided: Sequence[tuple[int, int, int]] = (),
    replan: Callable[[Sequence[tuple[int, int, int]]], object] = nobody,
    show: Callable[[int, bool], object] = nobody,
    world: World = ALONE,
    trackers: Trackers | None = None,
) -> State:
    """Train until the plan is done, the time is up, or the validation loss has stopped falling.

    Writes ``events.jsonl``, ``metrics.jsonl``, ``heartbeat`` and ``checkpoints/`` into ``directory`` and goes on from
    the newest whole checkpoint there. ``mix``: how often the items of ``train`` are in an epoch. When ``plan.minutes``
    asks for another number of steps, ``replan`` is told all decisions (after how many steps; steps and validations in
    all), and ``decided`` is what it was told before an interruption. ``show(step, last)`` is called after each
    validation. ``rescue`` says how large blocks may be, and makes them smaller when memory runs out. ``trackers`` get
    what is written. Returns the final state; the best weights are in ``checkpoints/step-<best_step>``. In company every
    process calls this; the first one writes, and each its share of a checkpoint.

    Raises :class:`~ownchat.errors.Interrupted` after saving when a signal came, and
    :class:`~ownchat.errors.RunError` when the loss is no longer a number, or one document is more than memory holds.
    """
    told = {name: directory / name if world.first else Path(os.devnull) for name in ("events.jsonl", "metrics.jsonl")}
    watched = Trackers((), directory) if trackers is None else trackers
    events = Events(told["events.jsonl"], also=watched.event)
    metrics = JsonLines(told["metrics.jsonl"], also=watched.row)
    saved, beat = directory / "checkpoints", Heartbeat(directory / "heartbeat").beat if world.first else nobody
    state, batches, planned, said = State(), Batches(train.item_lengths, plan, mix), plan.total_steps, ""

    def passed_over(path: Path, why: str) -> None:
        step = int(path.name.removeprefix("step-"))
        say(f"the checkpoint of step {step} is not used: {why}; training goes on from before it")
        events.emit("checkpoint_damaged", step=step, why=why)

    if (found := checkpoint.latest_in(world, saved, passed_over)) is not None:
        path, state = found
        optimizer.load(Saved(path))
    if world.first:
        for name in ("metrics.jsonl", SAMPLES):
            forget_after(directory / name, state.step if found else -1)
    events.emit("resumed" if found else "started", step=state.step, total_steps=plan.total_steps)
    clock, heap = time.monotonic() - state.seconds, Heap()
    recent: deque[float] = deque(maxlen=RECENT_STEPS)

    plans = list(decided)  # an earlier checkpoint may be gone on from: what was decided later holds when it is reached
    for step, *sizes in plans:
        plan = plan.with_total(*sizes) if step <= state.step else plan
    if state.total_steps:
        plan = plan.with_total(state.total_steps)
    scored = objective.documents(valid)

    def validate() -> float:
        nonlocal said

        def look(_: int) -> None:
            if stop.requested and world.alone:  # in company all would have to leave at the same block
                raise _Signalled

        def halved(old: int, new: int, why: str) -> None:
            rescue.validation_failed(state.step, old, new, why, events)
            if not world.alone:
                raise next_time(directory)

        block_tokens, scores = 0, []
        likeliest: list[np.ndarray] = []
        while block_tokens != rescue.block_tokens(state.step, "validate"):
            # scores that were made in larger blocks before a rescue are made again, so that a resume finds the same
            block_tokens = rescue.block_tokens(state.step, "validate")
            scores = world.score(
                model, scored, block_tokens=block_tokens, guard=rescue.guard, on_halved=halved, progress=look,
                likeliest=likeliest,
            )  # fmt: skip
        figures = objective.validation(valid, scores, likeliest)
        found = {f"validation_{name}": value for name, value in figures.items()}
        state.seconds = time.monotonic() - clock
        metrics.write(step=state.step, **found, seconds=round(state.seconds, 2))
        events.emit("validated", step=state.step, **found)
        state.validations += 1
        if (bits := found.get("validation_bits_per_byte")) is not None:
            said = f", {bits:.3f} bits per byte"
        return found["validation_loss"]

    def fitting_step(rate: float) -> tuple[Stepped, float]:
        """The next step, in blocks that fit into memory, and its seconds."""
        while True:
            began, number = time.monotonic(), state.step + 1
            rescue.activations(number)
            limit = rescue.block_tokens(number)
            blocks = batches.at(state.step, limit)
            items = [[train.item(number) for number in block] for block in blocks]
            mine = world.passes(items, limit)
            seed = plan.seed * 1_000_003 + state.step  # dropout, where a model has it, is the same after a resume
            try:
                done = train_step(
                    model, objective, optimizer, items, rate, plan.clip, seed=seed, guard=rescue.guard,
                    world=world, mine=mine,
                )  # fmt: skip
                return done, time.monotonic() - began
            except OutOfMemory as error:
                failed = error.with_traceback(None)  # which would hold what the step allocated
            optimizer.drop_gradients()
            beat(state.step)
            heard = events if world.first else Events(directory / "events.jsonl")
            rescue.step_failed(number, [[num_tokens(item) for item in block] for block in mine], failed, heard)
            if not world.alone:  # the others are in the middle of the step
                raise next_time(directory)

    def save() -> None:
        state.seconds = time.monotonic() - clock
        checkpoint.save(saved, state, optimizer.state(), save_weights, world=world, rows=optimizer.rows)
        if world.first:
            checkpoint.clear_old(
                saved, best_step=state.best_step, last_step=state.step, steps_per_epoch=plan.steps_per_epoch
            )
        events.emit("saved", step=state.step)

    def in_time() -> tuple[int, int]:
        """(steps, validations) that ``plan.minutes`` has room for, as the first process sees it."""
        newest = list(recent)[-max(MEASURED_STEPS, len(recent) // 2) :]
        fits = partial(steps_that_fit, plan, state, time.monotonic() - clock, newest, at_most=planned)
        total, validations = world.from_first(fits)
        return total, validations

    def end() -> None:
        """See at the speed by now where the training is to end, or as it was seen before an interruption."""
        nonlocal plan
        known = next((row for row in plans if row[0] == state.step), None)
        total, validations = in_time() if known is None else known[1:]
        if known is None:
            if not end_moved(plan, state.step, total):
                total, validations = plan.total_steps, plan.validations
            plans.append((state.step, total, validations))
            replan(plans)
        if (total, validations) != (plan.total_steps, plan.validations):
            plan = plan.with_total(total, validations)
            events.emit("planned", step=state.step, total_steps=total)

    def judge() -> None:
        """Validate, see whether it is the best so far, and save. A signal is not kept waiting: what is left to
        validate is done after the resume."""
        nonlocal plan
        state.validated = False
        with suppress(_Signalled):
            judge_validation(state, validate(), plan)
            state.validated = True
            measured = plan.minutes is not None and state.step > MEASURED_STEPS
            if measured and not state.decay_from and not plan.decays_at(state.step):
                state.total_steps = in_time()[0]  # as long as the rate stands, its end can be moved
            if state.total_steps:
                plan = plan.with_total(state.total_steps)
            if state.decay_from == state.step:
                events.emit("decay_began", step=state.step, total_steps=plan.total_steps)
            show(state.step, state.step >= plan.total_steps or bool(state.stopped))
        save()

    def leave_if_asked(*, saved: bool = True) -> None:
        over = state.stopped or (state.step >= plan.total_steps and state.validated)
        if world.any(stop.requested) and not over:
            if not saved:
                save()
            events.emit("stopped", step=state.step, signal=stop.name)
            what = f"saved at step {state.step} of {plan.total_steps}" if state.step else "before the first step"
            raise Interrupted(f"{stop.name or 'a signal to another process'}: {what}; the same command goes on")

    with progress("train", plan.total_steps, "steps") if world.first else nullcontext(nobody) as advance:
        advance(state.step)
        if state.step == 0:
            beat(0, force=True)
            with suppress(_Signalled):
                validate()  # the base: what every later figure is compared with
                show(0, False)
            leave_if_asked()
        if not state.validated:
            judge()
            leave_if_asked()
        while state.step < plan.total_steps and not state.stopped:
            rate = learning_rate(
                state.step, peak=plan.learning_rate, total=plan.total_steps, warmup=plan.warmup_steps,
                schedule=plan.schedule,
            )  # fmt: skip
            (loss, norm, tokens, figures), seconds = fitting_step(rate)
            heap.after_step(seconds)
            if not math.isfinite(loss) or not math.isfinite(norm):
                blocks = batches.at(state.step, rescue.block_tokens(state.step + 1))
                numbers = [int(number) for block in blocks for number in block]
                raise RunError(_not_a_number(state, numbers, train, events), where=str(directory), fix=_LOWER_RATE)
            state.step, state.tokens = state.step + 1, state.tokens + tokens
            state.step_seconds += seconds
            recent.append(seconds)
            metrics.write(
                step=state.step, loss=loss, **figures, learning_rate=rate, gradient_norm=norm, tokens=tokens,
                tokens_per_second=round(tokens / seconds, 1), seconds=round(time.monotonic() - clock, 2),
            )  # fmt: skip
            beat(state.step)
            advance(1, f"loss {loss:.3f}, {state.tokens / state.step_seconds:.0f} tokens/s{said}", of=plan.total_steps)
            if plan.minutes is not None and measured_at(state.step):
                end()
            due = plan.due(state.step)
            if due:
                judge()
            leave_if_asked(saved=due)
    events.emit("finished", step=state.step, best_step=state.best_step, best_loss=state.best_loss, why=state.stopped)
    beat(state.step, force=True)
    return state


class _Signalled(Exception):
    """A validation was left because a signal came."""


class Stepped(NamedTuple):
    """What one optimiser step did."""

    loss: float
    norm: float  # of the gradient, before clipping
    tokens: int  # real ones
    figures: dict[str, float]  # terms without a coefficient, to be looked at: means over the global batch


def train_step(
    model: Any,
    objective: Objective,
    optimizer: Optimizer,
    blocks: Sequence[Sequence[Item]],
    rate: float,
    clip: float,
    *,
    seed: int = 0,
    guard: Guard | None = None,
    world: World = ALONE,
    mine: Sequence[Sequence[Item]] | None = None,
) -> Stepped:
    """One optimiser step over a global batch.

    loss = sum of coefficient * term / global count: cutting the batch into other blocks changes nothing. In company
    ``mine`` are this process's blocks: of the same number in each, so some can be empty.

    Raises :class:`~ownchat.train.rescue.OutOfMemory` when memory runs out, or when ``guard`` says that it soon will;
    the weights are as they were then, and the gradient is to be dropped.
    """
    batch = [item for block in blocks for item in block]
    counts, blocks = objective.counts(batch), blocks if mine is None else mine
    totals, tokens, failed = torch.zeros(len(counts), dtype=torch.float64, device=model.device), 0, ""
    working: Sequence[Item] = max(blocks, key=len)  # what memory is needed for
    model.train()
    try:
        context = objective.prepare(model, batch)
        made = blocks_for(model, [documents_of(items) for items in blocks if items])
        for number, items in enumerate(blocks):
            working = items or working
            world.before_pass(model, is_last=number == len(blocks) - 1)
            if len(items) > 1 and guard is not None and guard.short():
                failed = "little is left"
                break
            torch.manual_seed(seed * 1_009 + number * world.size + world.rank)
            block = next(made) if items else None
            if block is not None and len(block.targets):
                totals += _add_gradient(model, objective, block, items, counts, context)
            else:
                world.empty_pass(model)
            tokens += 0 if block is None else block.num_tokens  # also of context only: nothing to learn from there
        else:
            working = max(blocks, key=len)
            norm = optimizer.clip(clip)  # the first number that is read: a GPU is waited for here
            *sums, seen = world.sum(torch.cat([totals, totals.new_tensor([tokens])])).tolist()
            means, tokens = dict(zip(counts, sums, strict=True)), int(seen)
            loss = sum(factor * means[name] for name, factor in objective.coefficients.items())
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        failed = first_line(error)
    if failed:
        forget_outputs(model)
        # raised out here: what is raised inside holds the error before it, and that one the block's tensors
        raise OutOfMemory(failed, items=len(working), tokens=sum(map(num_tokens, working)))
    if math.isfinite(loss) and math.isfinite(norm):
        optimizer.step(rate)
    figures = {name: mean for name, mean in means.items() if name not in objective.coefficients}
    return Stepped(loss, norm, tokens, figures)


def num_tokens(item: Item) -> int:
    """Tokens of all its documents."""
    return sum(len(ids) for ids, _ in item.documents)


def _add_gradient(
    model: Any, objective: Objective, block: Block, items: Sequence[Item], counts: dict[str, int], context: Any
) -> torch.Tensor:
    """Forward and backward of one block; returns its share of the mean of every term, in the order of ``counts``."""
    terms = objective.terms(model, block, items, context)
    means = {name: terms[name] / max(1, count) for name, count in counts.items()}
    torch.stack([factor * means[name] for name, factor in objective.coefficients.items()]).sum().backward()
    return torch.stack([mean.detach().double() for mean in means.values()])


def forget_after(path: Path, step: int) -> None:
    """Take away lines of steps that the checkpoint does not know: they will be written again."""
    if path.is_file():
        rows = read_lines(path)
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):  # at once, so that a process killed here loses none
            write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


_LOWER_RATE = "lower train.learning_rate, or look at the records named above; the last good checkpoint is kept"


def _not_a_number(state: State, numbers: list[int], train: TokenStore, events: Events) -> str:
    index = train.index()
    rows = [index[number * train.documents_per_item] for number in numbers]
    sources = list(dict.fromkeys(row.get("source") or f"record {row['record']}" for row in rows))
    events.emit("not_finite", step=state.step + 1, records=[row["record"] for row in rows], sources=sources)
    named = ", ".join(sources[:NAMED]) + (f" and {len(sources) - NAMED:,} more" if len(sources) > NAMED else "")
    return f"the loss of step {state.step + 1} is not a number; its batch holds {named}"
