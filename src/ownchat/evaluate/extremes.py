"""The questions on which the model gained most and lost most, with both answers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ownchat.evaluate.answers import Answer
from ownchat.evaluate.scores import chrf, chrf_statistics

MOST = 10


@dataclass(frozen=True)
class Example(Answer):
    """``base_loss`` and ``tuned_loss``: nats per trained token of the whole record, by whose change one sorts; None:
    nobody knows them."""

    base_loss: float | None
    tuned_loss: float | None
    chrf_change: float | None  # of this answer alone; None: the base was not asked


@dataclass(frozen=True)
class Extremes:
    """Never one question in both: of few the better half is ``best``. The first is the most extreme one."""

    best: list[Example]
    worst: list[Example]


def extremes(
    answers: Sequence[Answer], losses: Mapping[str, tuple[float, float]] | None, *, has_base: bool = True
) -> Extremes:
    """At most ten each, by how the record's loss per token changed; ``losses``: of base and tuned, by id; None: they
    are not known, and the chrF of the answers counts. ``has_base``: whether the answers of the base are its own, and
    not left open."""
    examples = []
    for answer in answers:
        references, (before, after) = [answer.reference], (None, None) if losses is None else losses[answer.id]
        base, tuned = (float(chrf(chrf_statistics([text], references)[0])) for text in (answer.base, answer.tuned))
        change = tuned - base if has_base else None
        examples.append(Example(**vars(answer), base_loss=before, tuned_loss=after, chrf_change=change))
    examples.sort(key=lambda example: (_change(example), example.id))
    half = (len(examples) + 1) // 2
    return Extremes(examples[:half][:MOST], examples[half:][::-1][:MOST])


def _change(example: Example) -> float:
    """What became worse, in nats, or in chrF where those are not known."""
    if example.base_loss is None or example.tuned_loss is None:
        return -(example.chrf_change or 0.0)
    return example.tuned_loss - example.base_loss
