"""Probabilities that are asked for beside an answer: in order, and never waited for while the answer has its slot."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import pytest

from ownchat.generate.engine import Delta, Usage
from ownchat.generate.late_scores import scored

PARTS = [
    Delta("a", (1,), (-1.0,)),
    Delta("\U0001f642", (2, 3, 4), (-4.0,), top=(((4, -4.0),),)),
    Delta("b", (5,), (-5.0,)),
    Delta("", (6,), (-6.0,), "stop", Usage(1, 6)),
]


@pytest.mark.parametrize("free", [True, False])
def test_probabilities_come_in_order_and_no_slot_is_waited_for_in_the_answer(free: bool) -> None:
    has_slot = False

    def answer() -> Generator[Delta]:
        nonlocal has_slot
        has_slot = True
        yield from PARTS
        has_slot = False

    def logprob(before: Sequence[int], id: int, wait: bool) -> float | None:
        assert not (wait and has_slot), "it would stand still"
        assert list(before) == list(range(id)), "asked after all tokens before it"
        return -float(id) if free or wait else None

    deltas = list(scored(answer(), [0], logprob))
    assert [id for delta in deltas for id in delta.ids] == [1, 2, 3, 4, 5, 6]
    assert [value for delta in deltas for value in delta.logprobs] == [-1, -2, -3, -4, -5, -6]
    assert "".join(delta.text for delta in deltas) == "a\U0001f642b"
    [character] = [delta for delta in deltas if len(delta.ids) == 3]
    assert character.top == (((2, -2.0),), ((3, -3.0),), ((4, -4.0),))
    assert deltas[-1] == PARTS[-1] and (Delta("") in deltas) is not free, "signs of life while others wait"


def test_nothing_is_asked_for_an_answer_that_nobody_wants() -> None:
    deltas = list(scored((part for part in PARTS), [0], lambda before, id, wait: None))
    assert [delta.ids for delta in deltas if delta.text] == [(1,), (), (5,)]
    assert deltas[-1].finish_reason == "stop"
