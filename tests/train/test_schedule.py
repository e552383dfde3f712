"""Steps, rates, and when to stop: pure functions of what was seen."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from ownchat.train.checkpoint import State
from ownchat.train.schedule import Plan, end_moved, judge, learning_rate, steps_that_fit

PLAN = Plan(
    seed=0, batch_tokens=4096, block_tokens=1024, steps_per_epoch=500, total_steps=1000, warmup_steps=50,
    learning_rate=1.0, schedule="wsd", clip=1.0, validate_every=50, patience=3, minutes=None, validations=20,
)  # fmt: skip


def rates(plan: Plan) -> list[float]:
    return [
        learning_rate(step, peak=1.0, total=plan.total_steps, warmup=plan.warmup_steps, schedule=plan.schedule)
        for step in range(plan.total_steps)
    ]


def test_warm_up_stable_decay() -> None:
    found = rates(PLAN)
    assert found[0] == 1 / 50 and found[49:801] == [1.0] * 752
    assert found[900] == pytest.approx(0.5) and found[-1] == 1 / 200
    assert all(before > after for before, after in pairwise(found[800:]))


def test_a_decay_that_begins_early_has_the_same_share() -> None:
    shorter = PLAN.with_total(PLAN.decaying_from(400))
    assert shorter.total_steps == 500 and rates(shorter)[:401] == rates(PLAN)[:401]
    assert rates(shorter)[401] < 1 and rates(shorter)[-1] == 1 / 100
    assert PLAN.decaying_from(990) == 1000, "never later than planned"
    assert shorter.validate_every == 25
    assert not PLAN.decays_at(799) and PLAN.decays_at(800)
    assert replace(PLAN, schedule="cosine").decays_at(1)


@pytest.mark.parametrize(("schedule", "total"), [("wsd", 500), ("cosine", 0)])
def test_what_no_longer_falls(schedule: str, total: int) -> None:
    """The rate is lowered where it still can be; elsewhere training stops."""
    plan, state = replace(PLAN, schedule=schedule), State()  # type: ignore[arg-type]
    for step, loss in ((250, 2.0), (300, 2.1), (350, 2.05)):
        state.step = step
        judge(state, loss, plan)
        assert not state.stopped and not state.total_steps
    state.step = 400
    judge(state, 2.2, plan)
    assert (state.total_steps, state.decay_from) == ((total, 400) if total else (0, 0))
    assert bool(state.stopped) == (schedule == "cosine")
    assert (state.best_step, state.best_loss) == (250, 2.0)


def test_a_loss_that_goes_up_and_down_and_falls_is_left_alone() -> None:
    state = State()
    for step, loss in ((100, 2.6), (150, 2.5), (200, 2.2), (250, 2.3), (300, 2.25), (350, 2.21)):
        state.step = step
        judge(state, loss, PLAN)
    assert state.validations_without_gain == 3 and not state.decay_from, "2.25 on average, and 2.43 before"
    for step, loss in ((400, 2.3), (450, 2.28)):
        state.step = step
        judge(state, loss, PLAN)
    assert state.decay_from == 450, "2.26 on average, and 2.25 before"


def test_a_falling_rate_falls_to_its_end() -> None:
    state = State(best_loss=1.0, validations_without_gain=8)
    for step in (850, 900, 950, 1000):
        state.step = step
        judge(state, 1.5, PLAN)
    assert not state.stopped and not state.total_steps


def test_validations_near_the_end_are_one() -> None:
    plan = PLAN.with_total(1010)
    assert plan.validate_every == 50
    assert [step for step in range(1, 1011) if plan.due(step)] == [*range(50, 1000, 50), 1010]
    given = replace(plan, validations=0)
    assert given.due(1000) and given.due(1010), "where their distance was asked for, it is kept"


def test_steps_that_fit_in_the_minutes() -> None:
    plan = replace(PLAN, minutes=10.0)
    state = State(step=4, step_seconds=4.0, validations=1)
    # one validation took 1 s; 600 s less 5 gone, less the last validation, less 19 others, at 1 s a step
    assert steps_that_fit(plan, state, 5.0, at_most=1000) == (4 + 575, 20)
    slow = State(step=4, step_seconds=4.0, validations=1)
    assert steps_that_fit(plan, slow, 14.0, at_most=1000)[1] == 6, "a tenth of the time for validations"
    assert steps_that_fit(plan, State(step=4, step_seconds=0.4, validations=1), 1.0, at_most=1000) == (1000, 20)
    assert steps_that_fit(plan, State(step=4, step_seconds=4000.0, validations=1), 4001.0, at_most=1000)[0] == 4
    each = replace(plan, validations=0, validate_every=10)
    assert steps_that_fit(each, state, 5.0, at_most=1000) == (4 + int(594 / 1.1), 0)


def test_the_end_is_moved_while_it_matters() -> None:
    plan = replace(PLAN, schedule="cosine", minutes=10.0)
    assert end_moved(plan, 4, 999), "the first measurement counts"
    assert end_moved(plan, 6, 940) and end_moved(plan, 6, 1060) and not end_moved(plan, 6, 960)
    assert end_moved(plan, 800, 2000) and not end_moved(plan, 801, 2000), "the rate is low by then"
    assert not end_moved(replace(plan, schedule="wsd"), 6, 500), "its validations do that"
