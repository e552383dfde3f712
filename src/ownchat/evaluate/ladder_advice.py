"""What the ladder says in one sentence: the rung that takes least among those that the best one does not beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ownchat.evaluate.answer_scores import Metric
from ownchat.evaluate.ladder import Row, Rung, best_prompt, paired
from ownchat.evaluate.scores import Interval, group_index
from ownchat.evaluate.wording import FEW_GROUPS, interval, number

UNITS: dict[Metric, str] = {"chrf": "points of chrF", "accuracy": "points of accuracy", "rouge_l": "points of ROUGE-L",
                            "exact": "points of exact matches"}  # fmt: skip
Beyond = Callable[[Rung, Rung], Interval]  # by how much the second is better

AS_GOOD = 5.0  # points: where the best could be so much better and more, "as good" would say too much
UNKNOWN = Interval(0.0, -100.0, 100.0)  # every metric is 0 to 100


@dataclass(frozen=True)
class Advice:
    """``text``: one sentence. ``train``: false where no training pays. ``rung``: the one to use; None: unknown."""

    text: str
    train: bool
    rung: str | None


def advise(rungs: Sequence[Rung], rows: Sequence[Row], metric: Metric, *, draws: int = 1000, seed: int = 0) -> Advice:
    """By paired intervals: the first rung (in the order of what they take) whose interval to the best one reaches zero.

    ``rungs`` in that order. The best one is the best on these rows, so that it is a little flattered: a tie goes to
    what takes less. Rungs that answered less than half of the rows, or too few groups, are left out and named. Paired
    intervals are not transitive: "beats" is said only where the interval of the two that are named is above zero.
    """
    answered = [rung for rung in rungs if any(one.error is None for one in rung.answers or ())]
    groups = _groups(rows)
    if len(answered) < 2:
        return Advice("there is nothing to compare: fewer than two rungs were answered", True, None)
    if groups < FEW_GROUPS:
        many = f"{len(rows)} question{'' if len(rows) == 1 else 's'} of {groups} group{'' if groups == 1 else 's'}"
        return Advice(f"the rows are too few to tell: {many} ({FEW_GROUPS} groups are the least)", True, None)
    scored = [rung for rung in answered if _enough(both := _both(rows, rung, rung)) and 2 * len(both) >= len(rows)]
    few = [f"{rung.name} ({len(_both(rows, rung, rung))} of {len(rows)})" for rung in answered if rung not in scored]
    left_out = f"; left out, too few rows were answered: {', '.join(few)}" if few else ""
    if len(scored) < 2:
        return Advice(f"there is nothing to compare: fewer than two rungs answered enough rows{left_out}", True, None)

    def beyond(before: Rung, after: Rung) -> Interval:
        found = paired(before, after, rows, metric, draws, seed) if _enough(_both(rows, before, after)) else None
        return found or UNKNOWN

    said = _advise(scored, beyond, metric, len(rows))
    return replace(said, text=said.text + left_out)


def _advise(scored: Sequence[Rung], beyond: Beyond, metric: Metric, rows: int) -> Advice:
    best = scored[0]
    for rung in scored[1:]:
        if beyond(best, rung).value > 0:
            best = rung
    chosen = next(rung for rung in scored if rung is best or beyond(rung, best).low <= 0)
    trained = [rung for rung in scored if rung.kind == "trained"]
    prompt = best_prompt(scored)
    if chosen.kind == "prompt":
        better = next((rung for rung in trained if beyond(chosen, rung).low > 0), None)
        if better is None:
            return _use_a_prompt(chosen, best, trained, beyond, metric, rows)
        chosen = better

    rivals = [] if prompt is None else [prompt]  # each takes less, or was trained here
    if chosen.kind == "server":
        rivals += trained[-1:]
    elif chosen is not trained[0]:
        rivals.append(trained[0])
    for rival in rivals:
        if not (gain := beyond(rival, chosen)).above(0):
            return _cannot_tell(rival, chosen, gain, metric, rows)
    beaten = " and ".join(
        f"{'the best prompt' if rival is prompt else _trained_here(rival, chosen)} by "
        f"{_points(beyond(rival, chosen), metric)}"
        for rival in rivals
    )
    if chosen.kind == "trained":
        words = "train" if chosen is trained[0] else f"train with {chosen.name}"
        ahead = f"beats {beaten}" if beaten else "is the best of what was compared"
        return Advice(f"{words}: {chosen.name} {ahead}", True, chosen.name)
    return Advice(f"use {chosen.name}: it beats {beaten or 'the others'}", False, chosen.name)


def _use_a_prompt(
    chosen: Rung, best: Rung, trained: Sequence[Rung], beyond: Beyond, metric: Metric, rows: int
) -> Advice:
    name = _of_prompt(chosen)
    if not trained:
        return Advice(f"{name} is the one to use; nothing trained was compared", True, chosen.name)
    rival = best if best.kind != "prompt" else max(trained, key=lambda rung: beyond(chosen, rung).value)
    gain = beyond(chosen, rival)
    if gain.high > AS_GOOD:
        return _cannot_tell(chosen, rival, gain, metric, rows)
    if gain.high < 0:
        return Advice(f"{name} is better than {rival.name} ({_points(gain, metric)}): do not train", False, chosen.name)
    gained = _points(gain, metric, signed=True)
    return Advice(f"{name} is as good: do not train ({rival.name}: {gained})", False, chosen.name)


def _cannot_tell(before: Rung, after: Rung, gain: Interval, metric: Metric, rows: int) -> Advice:
    name = _of_prompt(before) if before.kind == "prompt" else before.name
    known = "they answered too few of the same rows" if gain is UNKNOWN else _points(gain, metric)
    return Advice(f"{rows} questions cannot tell {name} from {after.name} ({known}): ask more with --rows", True, None)


def _both(rows: Sequence[Row], first: Rung, second: Rung) -> list[Row]:
    """The rows that both answered."""
    answers = zip(rows, first.answers or (), second.answers or (), strict=False)
    return [row for row, one, other in answers if one.error is None and other.error is None]


def _groups(rows: Sequence[Row]) -> int:
    return int(group_index([row.group for row in rows]).max()) + 1 if rows else 0


def _enough(rows: Sequence[Row]) -> bool:
    """An interval of fewer groups is too narrow to be trusted."""
    return _groups(rows) >= FEW_GROUPS


def _trained_here(rival: Rung, chosen: Rung) -> str:
    return "what was trained here" if chosen.kind == "server" else rival.name


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
