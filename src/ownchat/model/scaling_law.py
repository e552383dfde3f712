"""How large a model, and how many passes over the data, for the text and the compute that there are.

The loss of a model of N weights after D tokens is E + A / N^alpha + B / D^beta (Hoffmann et al. 2022,
arXiv:2203.15556), with the constants as Besiroglu et al. 2024 (arXiv:2404.10102) corrected them. Tokens that are read
again count for less: R* (1 - exp(-R / R*)) unique sets of tokens for R repetitions, R* = 15.4 (Muennighoff et al. 2023,
arXiv:2305.16264): up to four passes nearly as good as new text, after forty next to nothing.

Muennighoff's other term, weights beyond what the unique text asks for, is left out: it was fitted on runs with the
usual weight decay. With stronger decay the loss kept falling in N up to seven weights for each unique token (Kim et al.
2025, arXiv:2509.14786), so that is the limit here.

The constants were fitted on models from 44 million weights, and text cut into 32,000 kinds of tokens. For smaller ones
the law tells how to share compute between size and passes, and not what the loss will be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

IRREDUCIBLE, A, ALPHA, B, BETA = 1.8172, 482.01, 0.3478, 2085.43, 0.3658
REPETITIONS = 15.387756  # R* of data
MOST_EPOCHS = 40.0
AS_GOOD_AS_NEW = 4.0  # epochs
WEIGHTS_PER_TOKEN = 7.0  # unique tokens


def effective_tokens(unique: float, epochs: float) -> float:
    """So many new tokens would teach as much.

    >>> round(effective_tokens(100, 1)), round(effective_tokens(100, 4)), round(effective_tokens(100, 40))
    (100, 373, 1517)
    """
    if epochs <= 1:
        return unique * epochs
    return unique * (1 + REPETITIONS * (1 - math.exp(-(epochs - 1) / REPETITIONS)))


def predicted_loss(weights: float, unique: float, epochs: float) -> float:
    """Nats for each token, by the law.

    >>> round(predicted_loss(70e9, 1.4e12, 1), 2)  # Chinchilla
    1.97
    """
    return IRREDUCIBLE + A / weights**ALPHA + B / effective_tokens(unique, epochs) ** BETA


def optimal_weights(tokens: float) -> float:
    """The size at which so many new tokens and the compute they take are best used.

    >>> 15 < 1.4e12 / optimal_weights(1.4e12) < 25  # tokens for each weight
    True
    """
    ratio = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    return float(ratio * (tokens * ratio) ** (BETA / ALPHA))


def optimal_tokens(weights: float) -> float:
    """The reverse of :func:`optimal_weights`."""
    ratio = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    return float((weights / ratio) ** (ALPHA / BETA) / ratio)


def best_choice(unique: int, candidates: Sequence[tuple[int, float]]) -> int:
    """Which of ``candidates``, each its weights and the passes that there is time for, is predicted to lose least.

    Those above :data:`WEIGHTS_PER_TOKEN` for each unique token are left out, unless all are.
    """
    limit = max(min(weights for weights, _ in candidates), WEIGHTS_PER_TOKEN * unique)
    allowed = [number for number, (weights, _) in enumerate(candidates) if weights <= limit]
    return min(allowed, key=lambda number: predicted_loss(candidates[number][0], unique, candidates[number][1]))


def flops_for_new(unique: int) -> float:
    """What it takes to read the text :data:`AS_GOOD_AS_NEW` times with the best size for that."""
    tokens = effective_tokens(unique, AS_GOOD_AS_NEW)
    return 6.0 * optimal_weights(tokens) * AS_GOOD_AS_NEW * unique
