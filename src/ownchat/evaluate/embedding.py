"""Nearness in meaning: the cosine between the embeddings of an answer and of the one that was really given.

The model of embeddings is the user's, behind an OpenAI-compatible URL. Cosines of different models do not compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ownchat.errors import UserError
from ownchat.evaluate.judge import Server, name_of
from ownchat.evaluate.scores import Array, Interval, Statistic, bootstraps, ratio
from ownchat.generate.openai import NOT_OPENAI, Busy, OpenAIEngine, Unusable

Embed = Callable[[Sequence[str]], list[list[float]]]

PART = 32  # texts in one request
TIMEOUT_SECONDS, RETRIES = 60.0, 2
MOST_CHARACTERS = 6_000  # of a text: models of embeddings refuse what is longer than their context


@dataclass(frozen=True)
class Embedded:
    """Mean cosines to the real answers, -1 to 1; an empty answer counts as 0, since there is nothing to embed."""

    model: str
    base: Interval | None
    tuned: Interval | None
    difference: Interval | None
    failed: int  # questions that are left out, because the server gave no vector
    unusable: bool = False  # that is all of them, because the server was down, refused the key or was too slow


def embedding(
    settings: Server,
    references: Sequence[str],
    base: Sequence[str],
    tuned: Sequence[str],
    groups: Sequence[str | None],
    *,
    draws: int = 1000,
    progress: Callable[[int], object] | None = None,
) -> tuple[Embedded, str | None]:
    """Ask the server behind ``settings["url"]``; beside the result the first error, where there was one.

    Does not raise for a server that is down or slow. What a request was refused for may be one of its texts: then its
    questions are asked one by one. ``progress(1)`` for each question.
    """
    engine = OpenAIEngine(settings["url"], settings.get("model"), timeout_seconds=TIMEOUT_SECONDS, retries=RETRIES)
    error: str | None = None
    unusable = False
    cosines: list[tuple[float, float] | None] = []
    try:
        for start in range(0, len(references), PART):
            part = slice(start, start + PART)
            texts = [[text[:MOST_CHARACTERS] for text in side[part]] for side in (references, base, tuned)]
            found, failed, unusable = _cosines_of_part(engine.embed, texts)
            cosines, error = cosines + found, error or failed
            if progress is not None:
                progress(len(found))
            if unusable or (len(found) > 1 and failed is not None and not any(found)):
                cosines += [None] * (len(references) - len(cosines))  # it had its retries: the rest is not asked
                break
        name = name_of(engine)
    finally:
        engine.close()
    compared = compare_cosines(name, cosines, groups, draws=draws)
    return replace(compared, unusable=unusable and compared.base is None), error


def _cosines_of_part(embed: Embed, texts: list[list[str]]) -> tuple[list[tuple[float, float] | None], str | None, bool]:
    """:func:`cosines_to_first`, of what is refused together one question at a time; with the first error, and whether
    the server cannot be used."""
    asked = len(texts[0])
    try:
        return cosines_to_first(embed, texts), None, False
    except (UserError, ValueError) as failure:
        error = failure.what if isinstance(failure, UserError) else NOT_OPENAI
        if asked == 1 or isinstance(failure, Unusable | Busy):
            return [None] * asked, error, isinstance(failure, Unusable | Busy)
    found: list[tuple[float, float] | None] = []
    for at in range(asked):
        one, _, unusable = _cosines_of_part(embed, [[side[at]] for side in texts])
        found += one
        if unusable:
            return found + [None] * (asked - len(found)), error, True
    return found, error, False


def cosines_to_first(embed: Embed, texts: Sequence[Sequence[str]]) -> list[tuple[float, float] | None]:
    """``texts``: references, answers of the base, answers of the tuned model. For each question the cosines of both
    answers to the reference; None where a vector is no direction.

    >>> vectors = {"up": [0.0, 2.0], "right": [1.0, 0.0]}
    >>> cosines_to_first(lambda texts: [vectors[text] for text in texts], [["up", "up"], ["up", ""], ["right", "up"]])
    [(1.0, 0.0), (0.0, 1.0)]
    """
    distinct = sorted({text for side in texts for text in side if text.strip()})
    found = embed(distinct) if distinct else []
    if len(found) != len(distinct):
        raise ValueError(f"{len(found)} vectors for {len(distinct)} texts")
    table = np.array(found, dtype=np.float64)  # ValueError: not of one length
    if distinct and (table.ndim != 2 or not np.isfinite(table).all()):
        raise ValueError("these are no vectors")
    lengths = np.linalg.norm(table, axis=1, keepdims=True) if distinct else np.zeros((0, 1))
    row = {text: at for at, text in enumerate(distinct)}

    def cosine(answer: str, reference: str) -> float | None:
        if not answer.strip():
            return 0.0
        if not reference.strip() or not lengths[row[answer], 0] or not lengths[row[reference], 0]:
            return None
        first, second = row[answer], row[reference]
        return round(float(table[first] @ table[second] / (lengths[first, 0] * lengths[second, 0])), 12)

    pairs = [(cosine(base, real), cosine(tuned, real)) for real, base, tuned in zip(*texts, strict=True)]
    return [None if base is None or tuned is None else (base, tuned) for base, tuned in pairs]


def compare_cosines(
    model: str, cosines: Sequence[tuple[float, float] | None], groups: Sequence[str | None], *, draws: int = 1000
) -> Embedded:
    """The means with their paired intervals, over the questions that have both."""
    rows = [(*pair, 1.0) for pair in cosines if pair is not None]
    theirs = [group for pair, group in zip(cosines, groups, strict=True) if pair is not None]
    sums: Array = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    views: list[Statistic] = [
        lambda total: ratio(total[..., [0, 2]]),
        lambda total: ratio(total[..., [1, 2]]),
        lambda total: (total[..., 1] - total[..., 0]) / total[..., 2],
    ]
    of_base, of_tuned, change = bootstraps(sums, views, theirs, draws=draws)
    return Embedded(model, of_base, of_tuned, change, failed=len(cosines) - len(rows))


def note(embedded: Embedded, error: str | None, questions: int) -> str | None:
    """What to say of answers without a vector."""
    if not embedded.failed:
        return None
    why = f": {error}" if error is not None else ""
    return f"The embeddings of {embedded.model} are missing for {embedded.failed:,} of {questions:,} questions{why}."
