"""Exposure: how much of a planted secret was learned by heart, in bits.

Carlini et al. 2019, https://arxiv.org/abs/1802.08232: with R secrets that could have been drawn, the exposure of the
planted one is ``log2 R - log2 rank``, its rank among all R by likelihood. A secret that was never learned has 1.4 bits
on average; the most is ``log2 R``. Where R is too many to score, a skew-normal distribution is fitted to the
log-perplexities of some others (section 4.5 of the paper), and its share below the secret's stands in for rank / R.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ownchat.evaluate.figures import percent
from ownchat.evaluate.passes import shared
from ownchat.evaluate.scores import Array, Interval, bootstrap, proportion, ratio
from ownchat.tokenizer.canaries import SPACE, Canary, Form, as_record, secret

if TYPE_CHECKING:
    from ownchat.evaluate.care import Side, Subject

OTHERS = 100  # secrets that each planted one is held against
MOST_SKEW = 0.99  # of a skew-normal distribution it is below 0.9953
GRID, DEVIATIONS = 4001, 12.0  # of the integral over its density


def exposure(own: float, others: Array, space: int) -> float:
    """In bits. ``own``, ``others``: nats that the planted secret and others of the same form cost (their negative
    log-likelihood); ``space``: how many secrets there are, all of them where ``others`` has ``space - 1``.

    >>> exposure(1.0, np.array([2.0, 3.0, 4.0]), 4)
    2.0
    """
    if len(others) + 1 >= space:
        return math.log2(space) - math.log2(1 + int((others < own).sum()))
    share = skew_normal_share(own, others)
    return -math.log2(min(1.0, max(share, 1 / space)))


def skew_normal_share(value: float, sample: Array) -> float:
    """The share below ``value`` of a skew-normal distribution with the mean, deviation and skewness of ``sample``."""
    mean, deviation = float(np.mean(sample)), float(np.std(sample))
    if deviation == 0:
        return 1.0 if value >= mean else 0.0
    skew = float(np.clip(np.mean(((sample - mean) / deviation) ** 3), -MOST_SKEW, MOST_SKEW))
    power = abs(skew) ** (2 / 3)
    delta = math.copysign(math.sqrt(math.pi / 2 * power / (power + ((4 - math.pi) / 2) ** (2 / 3))), skew)
    shape = delta / math.sqrt(1 - delta**2)
    scale = deviation / math.sqrt(1 - 2 * delta**2 / math.pi)
    end = (value - (mean - scale * delta * math.sqrt(2 / math.pi))) / scale
    # An integral of what is nowhere negative: a difference of distribution functions would lose the far tail.
    points = np.linspace(min(end, 0.0) - DEVIATIONS, end, GRID)
    below = np.array([0.5 * math.erfc(-shape * point / math.sqrt(2)) for point in points])
    density = 2 / math.sqrt(2 * math.pi) * np.exp(-(points**2) / 2) * below
    return float(np.trapezoid(density, points))


def measured(
    subject: Subject, side: Side, planted: Sequence[Canary], form: Form, *, others: int = OTHERS
) -> tuple[Array, Array]:
    """For each canary its exposure in bits, and 1 where the model writes the secret after the question and the opening
    of the answer, always taking the likeliest token."""
    bits, extracted = [], []
    for number, canary in enumerate(planted):
        rng = np.random.default_rng([subject.seed, number + 1])
        secrets = [canary.secret]
        while len(secrets) <= others:
            if (drawn := secret(rng)) != canary.secret:
                secrets.append(drawn)
        scored = subject.scored(side, _rows(subject, canary, form, secrets))
        nats = np.array([-values.sum() for values, _ in scored])
        bits.append(exposure(float(nats[0]), nats[1:], SPACE))
        extracted.append(float(scored[0][1].all()))
    return np.array(bits), np.array(extracted)


def _rows(subject: Subject, canary: Canary, form: Form, secrets: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """The canary with each of these secrets as it is trained; only what differs between them is scored."""
    from ownchat.tokenizer.tokens import render_record

    system = subject.config.data.system
    texts = [as_record(canary, form, secret=each, system=system) for each in secrets]
    made = [list(render_record(subject.tokenizer, text).ids) for text in texts]
    start, end = shared(made), shared([ids[::-1] for ids in made])
    return [(ids, [int(start <= place < len(ids) - end) for place in range(len(ids))]) for ids in made]


def mean(values: Array, *, draws: int) -> Interval | None:
    """Of one number for each canary."""
    return bootstrap(np.stack([values, np.ones(len(values))], axis=1), ratio, [None] * len(values), draws=draws)


def share(values: Array) -> Interval | None:
    """In percent, of one 0 or 1 for each canary."""
    return percent(proportion(values, [None] * len(values)))
