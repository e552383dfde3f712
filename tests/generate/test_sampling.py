"""Sampling agrees with transformers' processors, and a draw is a function of seed and position."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ownchat.errors import UserError
from ownchat.generate.engine import Sampling
from ownchat.generate.sampling import choose, draw, process, uniform

CASES = [
    Sampling(temperature=0.7),
    Sampling(temperature=1.0, top_k=5),
    Sampling(temperature=1.0, top_k=10_000),
    Sampling(temperature=1.3, top_p=0.8),
    Sampling(temperature=1.0, top_p=0.01),
    Sampling(temperature=1.0, min_p=0.1),
    Sampling(temperature=1.0, min_p=1.0),
    Sampling(temperature=1.0, repetition_penalty=1.4),
    Sampling(temperature=1.0, repetition_penalty=0.7),
    Sampling(temperature=0.6, top_k=40, top_p=0.9, min_p=0.05, repetition_penalty=1.2),
]


@pytest.mark.parametrize("sampling", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_steps_equal_those_of_transformers(sampling: Sampling, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(500, generator=generator) * 4
    history = torch.randint(0, 500, (60,), generator=generator)  # with repetitions
    steps = [
        RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
        TemperatureLogitsWarper(sampling.temperature),
    ]
    steps += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    steps += [TopPLogitsWarper(sampling.top_p), MinPLogitsWarper(sampling.min_p)]
    expected = logits[None].clone()
    for step in steps:
        expected = step(history[None], expected)
    assert torch.equal(process(logits, history, sampling), expected[0])


def test_greedy_takes_the_likeliest_after_the_penalty() -> None:
    logits = torch.tensor([1.0, 3.0, 2.9])
    nothing = torch.empty(0, dtype=torch.long)
    assert choose(logits, nothing, Sampling(), seed=0, position=0) == 1
    assert choose(logits, torch.tensor([1]), Sampling(repetition_penalty=1.5), seed=0, position=0) == 2


def test_draws_follow_the_distribution() -> None:
    scores = torch.tensor([0.5, 0.3, 0.2]).log()
    drawn = torch.tensor([draw(scores, uniform(3, position)) for position in range(20_000)])
    shares = drawn.bincount(minlength=3) / len(drawn)
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.015)  # four standard errors


@pytest.mark.parametrize("point", [0.0, 0.25, 0.5, 1 - 2**-53])
def test_a_removed_token_is_never_drawn(point: float) -> None:
    scores = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf])
    assert draw(scores, point) in (1, 3)


def test_a_draw_ignores_the_state_of_generators() -> None:
    logits = torch.randn(100, generator=torch.Generator().manual_seed(0))
    history = torch.tensor([1, 2])

    def sample(seed: int) -> list[int]:
        return [choose(logits, history, Sampling(temperature=1.0), seed=seed, position=n) for n in range(50)]

    first = sample(7)
    torch.manual_seed(99)
    torch.rand(3)
    assert sample(7) == first
    assert sample(8) != first
    assert len(set(first)) > 5  # position matters too


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -0.1},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"seed": -1},
        {"stop": ("",)},
        {"stop": "END"},
    ],
)
def test_values_out_of_range_are_refused(values: dict) -> None:
    with pytest.raises(UserError):
        Sampling(**values)
