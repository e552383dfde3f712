"""The numbers the loop goes by: how many steps, at which rate, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any, Literal

import numpy as np

from ownchat.tokenizer.packing import Mix, num_steps
from ownchat.train.checkpoint import State

Schedule = Literal["cosine", "linear", "constant", "wsd"]

DECAY_SHARE = 0.2  # of the steps, at the end of warm-up-stable-decay: to 0, linear (Hägele et al. 2024)
VALIDATING_SHARE = 0.1  # of train.minutes, at most, where the number of validations is not given
FEWEST_VALIDATIONS = 4
MEASURED_STEPS = 4  # after these the speed is known well enough to plan for train.minutes
PLANNED_SHARE = 0.8  # of the steps, after which the end is not moved any more: the rate is low by then
WORTH_MOVING = 0.05  # of the steps: the rate follows a changed end at once, so it is left where it hardly differs


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
    schedule: Schedule
    clip: float
    validate_every: int
    patience: int
    minutes: float | None
    validations: int = 0  # in all, where their distance follows from the number of steps

    def with_total(self, total: int, validations: int = 0) -> Plan:
        """The same plan in fewer steps: the schedule ends where the steps end. ``validations``: in all; 0: as many."""
        validations = validations or self.validations
        return replace(
            self,
            total_steps=total,
            warmup_steps=min(self.warmup_steps, max(1, total // 5)),
            validate_every=max(1, round(total / validations)) if validations else self.validate_every,
            validations=validations,
        )

    def due(self, step: int) -> bool:
        """Is there a validation after ``step``? Always at the end; where their number is derived not just before it."""
        left = self.total_steps - step
        if left <= 0:
            return True
        return step % self.validate_every == 0 and not (self.validations and 2 * left < self.validate_every)

    def decays_at(self, step: int) -> bool:
        """Does the rate fall to its end already? Only warm-up-stable-decay has a time before that."""
        return self.schedule != "wsd" or step >= self.total_steps - _decay_steps(self.total_steps)

    def decaying_from(self, step: int) -> int:
        """Steps in all when the decay begins at ``step``: its share is the same, and it ends no later than planned."""
        return min(self.total_steps, max(step + 1, round(step / (1 - DECAY_SHARE))))


def steps_in(lengths: np.ndarray, batch_tokens: int, epochs: float, mix: Mix | None = None) -> tuple[int, int]:
    """(steps of one epoch, steps of ``epochs`` epochs)."""
    per_epoch = num_steps(lengths, batch_tokens, mix)
    return per_epoch, max(1, math.ceil(per_epoch * epochs - 1e-9))


def learning_rate(step: int, *, peak: float, total: int, warmup: int, schedule: Schedule) -> float:
    """The rate of step ``step`` (from 0): linear warm-up to ``peak``, then down to a tenth (cosine) or 0 (linear; wsd:
    in the last :data:`DECAY_SHARE` of the steps).

    >>> [round(learning_rate(step, peak=1.0, total=10, warmup=2, schedule="linear"), 2) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.12]
    >>> [round(learning_rate(step, peak=1.0, total=20, warmup=2, schedule="wsd"), 2) for step in (0, 2, 15, 16, 19)]
    [0.5, 1.0, 1.0, 1.0, 0.25]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share: Any = (step - warmup) / max(1, total - warmup)
    match schedule:
        case "cosine":
            return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))
        case "linear":
            return peak * max(0.0, 1 - share)
        case "constant":
            return peak
        case "wsd":
            return peak * min(1.0, (total - step) / _decay_steps(total))


def _decay_steps(total: int) -> int:
    return max(1, round(total * DECAY_SHARE))


def judge(state: State, loss: float, plan: Plan) -> None:
    """Best so far, or one more validation without gain? After ``plan.patience`` of these a training stops.

    One whose rate is still at its peak begins to lower it then: most of what it has to gain comes with that. At that
    rate the loss goes up and down, so it must not have fallen on average either. Once the rate falls, it falls to its
    end.
    """
    state.losses = [*state.losses, loss][-2 * plan.patience :]
    if loss < state.best_loss:
        state.best_loss, state.best_step, state.validations_without_gain = loss, state.step, 0
        return
    state.validations_without_gain += 1
    if state.validations_without_gain < plan.patience or state.step >= plan.total_steps:
        return
    if plan.schedule != "wsd":
        state.stopped = f"validation loss has not fallen for {plan.patience} validations"
    elif not plan.decays_at(state.step) and not _falls(state.losses, plan.patience):
        state.total_steps, state.decay_from = plan.decaying_from(state.step), state.step


def _falls(losses: Sequence[float], patience: int) -> bool:
    """Are the newest losses lower on average than those before?"""
    before, newest = losses[:-patience], losses[-patience:]
    return not before or fmean(newest) < fmean(before)


def measured_at(step: int) -> bool:
    """Is it time to see how many steps fit into ``train.minutes``? After four, and after every half as many more.

    >>> [step for step in range(50) if measured_at(step)]
    [4, 6, 9, 13, 19, 28, 42]
    """
    number = MEASURED_STEPS
    while number < step:
        number += number // 2
    return number == step


def end_moved(plan: Plan, step: int, total: int) -> bool:
    """Is ``total`` to be the number of steps in all from now on? What is measured first is; later only where it makes a
    difference, and not when the end is near. Warm-up-stable-decay is planned anew at its validations instead."""
    if step == MEASURED_STEPS:
        return True
    late = plan.schedule == "wsd" or step > PLANNED_SHARE * plan.total_steps
    return not late and abs(total - plan.total_steps) > WORTH_MOVING * plan.total_steps


def steps_that_fit(
    plan: Plan, state: State, elapsed: float, recent: Sequence[float] = (), *, at_most: int
) -> tuple[int, int]:
    """(steps in all, validations in all) that fit in ``plan.minutes`` at the speed by now.

    A step takes what the middle one of ``recent`` took, in seconds; without any: the mean of all so far. What is not a
    step is validating (and saving): its seconds so far, over the validations so far, say what one takes.
    """
    assert plan.minutes is not None
    seconds = 60 * plan.minutes
    validation = max(0.0, elapsed - state.step_seconds) / max(1, state.validations)
    step = median(recent) if recent else state.step_seconds / state.step
    left = seconds - elapsed - validation  # the last validation is after the last step
    if not plan.validations:
        more = left / (step + validation / plan.validate_every)
        return min(at_most, state.step + max(0, int(more))), 0
    affordable = int(VALIDATING_SHARE * seconds / validation) if validation else plan.validations
    validations = min(plan.validations, max(FEWEST_VALIDATIONS, affordable))
    more = (left - max(0, validations - state.validations) * validation) / step
    return min(at_most, state.step + max(0, int(more))), validations
