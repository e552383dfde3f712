"""From logits to the next token: pure functions with the definitions of transformers' logits processors.

A random draw depends on the seed and the token's position only, never on the state of a generator: the same
request gives the same answer whatever ran before it, and an answer continued from its middle goes on as it did.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from numpy.random import Generator, Philox

from ownchat.generate.engine import Sampling


def choose(
    logits: torch.Tensor, history: torch.Tensor, sampling: Sampling, *, seed: int, position: int, start: int = 0
) -> int:
    """The next token from ``logits`` [vocabulary] after the tokens ``history`` [any length].

    ``position`` is the place of the new token in the whole sequence, prompt included; ``start`` where in ``history``
    the answer begins.
    """
    scores = process(logits, history, sampling, start=start)
    if sampling.greedy:
        return int(scores.argmax())
    return draw(scores, uniform(seed, position))


def process(logits: torch.Tensor, history: torch.Tensor, sampling: Sampling, *, start: int = 0) -> torch.Tensor:
    """Logits [vocabulary] in fp32 after every step that ``sampling`` asks for; removed tokens are ``-inf``.

    ``start``: where in ``history`` the answer begins, whose tokens frequency and presence penalty count.
    """
    scores = logits.float()
    if sampling.logit_bias:
        scores = add_bias(scores, sampling.logit_bias)
    if sampling.repetition_penalty != 1:
        scores = penalise(scores, history, sampling.repetition_penalty)
    if sampling.frequency_penalty or sampling.presence_penalty:
        times = torch.bincount(history[start:], minlength=len(scores))
        scores = scores - sampling.frequency_penalty * times - sampling.presence_penalty * (times > 0)
    if sampling.greedy:
        return scores
    scores = scores / sampling.temperature
    if sampling.top_k:
        scores = keep_top_k(scores, sampling.top_k)
    if sampling.top_p < 1:
        scores = keep_top_p(scores, sampling.top_p)
    if sampling.min_p:
        scores = keep_min_p(scores, sampling.min_p)
    return scores


def add_bias(scores: torch.Tensor, bias: Mapping[int, float]) -> torch.Tensor:
    """Scores with ``bias`` added to the tokens it names."""
    ids = torch.tensor(list(bias), device=scores.device)
    return scores.index_add(0, ids, torch.tensor(list(bias.values()), device=scores.device))


def penalise(scores: torch.Tensor, history: torch.Tensor, penalty: float) -> torch.Tensor:
    """Make tokens of ``history`` less likely, each once: positive scores are divided, negative ones multiplied.

    CTRL, https://arxiv.org/abs/1909.05858, section 4.1.
    """
    used = scores[history]
    return scores.scatter(0, history, torch.where(used < 0, used * penalty, used / penalty))


def keep_top_k(scores: torch.Tensor, top_k: int) -> torch.Tensor:
    """Remove what is less likely than the ``top_k``-th token; ties with it stay."""
    kth = scores.topk(min(top_k, len(scores))).values[-1]
    return scores.masked_fill(scores < kth, -torch.inf)


def keep_top_p(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the fewest tokens whose probabilities reach ``top_p`` together (https://arxiv.org/abs/1904.09751)."""
    ascending, order = scores.sort()
    removed = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    removed[-1] = False  # the likeliest always stays
    return scores.masked_fill(torch.zeros_like(removed).scatter(0, order, removed), -torch.inf)


def keep_min_p(scores: torch.Tensor, min_p: float) -> torch.Tensor:
    """Remove what is less likely than ``min_p`` times the likeliest (https://arxiv.org/abs/2407.01082)."""
    probabilities = scores.softmax(-1)
    return scores.masked_fill(probabilities < min_p * probabilities.max(), -torch.inf)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a function of its arguments: one draw of the counter-based generator Philox.

    >>> uniform(1, 7) == uniform(1, 7) != uniform(1, 8)
    True
    """
    return float(Generator(Philox(key=seed % 2**128, counter=[0, position, 0, 0])).random())


def draw(scores: torch.Tensor, point: float) -> int:
    """The token in whose stretch of the cumulative distribution ``point`` in [0, 1) falls; never a removed one."""
    cumulative = scores.double().softmax(-1).cumsum(-1)
    return int(torch.searchsorted(cumulative, cumulative[-1] * point, right=True).clamp(max=len(scores) - 1))
