"""What the ladder says in one sentence: the rung that takes least among those that the best one does not beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ownchat.evaluate.answer_scores import Metric
from ownchat.evaluate.ladder import Row, Rung, best_prompt, paired
from ownchat.evaluate.scores import Interval, group_index
from ownchat.evaluate.wording import FEW_GROUPS, interval, number

UNITS: dict[Metric, str] = {"chrf": "points of chrF", "accuracy": "points of accuracy", "rouge_l": "points of ROUGE-L",
                            "exact": "points of exact matches"}  # fmt: skip
Beyond = Callable[[Rung, Rung], Interval]  # by how much the second is better

AS_GOOD = 5.0  # points: where the best could be so much better and more, "as good" would say too much


@dataclass(frozen=True)
class Advice:
    """``text``: one sentence. ``train``: false where no training pays. ``rung``: the one to use; None: unknown."""

    text: str
    train: bool
    rung: str | None


def advise(rungs: Sequence[Rung], rows: Sequence[Row], metric: Metric, *, draws: int = 1000, seed: int = 0) -> Advice:
    """By paired intervals: the first rung (in the order of what they take) whose interval to the best one reaches zero.

    ``rungs`` in that order. The best one is the best on these rows, so that it is a little flattered: a tie goes to
    what takes less.
    """
    scored = [rung for rung in rungs if any(one.error is None for one in rung.answers or ())]
    groups = int(group_index([row.group for row in rows]).max()) + 1 if rows else 0
    if len(scored) < 2:
        return Advice("there is nothing to compare: fewer than two rungs were answered", True, None)
    if groups < FEW_GROUPS:
        many = f"{len(rows)} question{'' if len(rows) == 1 else 's'} of {groups} group{'' if groups == 1 else 's'}"
        return Advice(f"the rows are too few to tell: {many} ({FEW_GROUPS} groups are the least)", True, None)

    def beyond(before: Rung, after: Rung) -> Interval:
        return paired(before, after, rows, metric, draws, seed) or Interval(0.0, 0.0, 0.0)

    best = scored[0]
    for rung in scored[1:]:
        if beyond(best, rung).value > 0:
            best = rung
    chosen = next(rung for rung in scored if rung is best or beyond(rung, best).low <= 0)
    trained = [rung for rung in scored if rung.kind == "trained"]
    prompt = best_prompt(rungs)
    if chosen.kind == "prompt":
        return _use_a_prompt(chosen, best, trained, beyond, metric, len(rows))
    ahead = "" if prompt is None else f"beats the best prompt by {_points(beyond(prompt, chosen), metric)}"
    if chosen.kind == "trained":
        words = "train" if chosen is trained[0] else f"train with {chosen.name}"
        if chosen is not trained[0]:
            ahead += f", and {trained[0].name} by {_points(beyond(trained[0], chosen), metric)}"
        return Advice(f"{words}: {chosen.name} {ahead or 'is the best of what was compared'}", True, chosen.name)
    others = f"what was trained here by {_points(beyond(trained[-1], chosen), metric)}" if trained else ""
    ahead = " and ".join(part for part in (ahead.removeprefix("beats "), others) if part)
    return Advice(f"use {chosen.name}: it beats {ahead or 'the others'}", False, chosen.name)


def _use_a_prompt(
    chosen: Rung, best: Rung, trained: Sequence[Rung], beyond: Beyond, metric: Metric, rows: int
) -> Advice:
    name = _of_prompt(chosen)
    if not trained:
        return Advice(f"{name} is the one to use; nothing trained was compared", True, chosen.name)
    rival = best if best.kind != "prompt" else max(trained, key=lambda rung: beyond(chosen, rung).value)
    gain = beyond(chosen, rival)
    if gain.high > AS_GOOD:
        text = f"{rows} questions cannot tell {name} from {rival.name} ({_points(gain, metric)}): ask more with --rows"
        return Advice(text, True, None)
    if gain.high < 0:
        return Advice(f"{name} is better than {rival.name} ({_points(gain, metric)}): do not train", False, chosen.name)
    gained = _points(gain, metric, signed=True)
    return Advice(f"{name} is as good: do not train ({rival.name}: {gained})", False, chosen.name)


def _of_prompt(rung: Rung) -> str:
    count = rung.prompt.retrieve + len(rung.prompt.examples) if rung.prompt is not None else 0
    if rung.name.startswith("optimised"):
        return "the optimised prompt"
    if count:
        return f"a prompt with {_WORDS.get(count, str(count))} example{'' if count == 1 else 's'}"
    return "the plain prompt" if rung.name.startswith("plain") else "a system prompt"


def _points(gain: Interval, metric: Metric, *, signed: bool = False) -> str:
    """``1.2 points of chrF [−0.4, 2.8]``."""
    bounds = interval({"value": gain.value, "low": gain.low, "high": gain.high}, 1).replace(" to ", ", ")
    return f"{number(gain.value, 1, signed=signed)} {UNITS[metric]} [{bounds}]"


_WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 8: "eight"}
