"""What the figures mean, in plain words: one wording for the page and for the terminal.

Works on the ``held_out`` part of ``report.json``, so that it says of a stored report what it said on the day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MISSING = "–"
FEW_GROUPS = 10  # below this a percentile bootstrap is known to be too narrow (Cameron, Gelbach and Miller 2008)

Estimate = Mapping[str, float]  # {"value", "low", "high"}


@dataclass(frozen=True)
class Measure:
    """A row of the result: its key in the report, its name, how it is written, which way is better."""

    key: str
    title: str
    decimals: int
    better: str
    meaning: str


MEASURES = (
    Measure("loss", "Loss", 3, "lower", "nats per token of the real replies, end token included"),
    Measure("perplexity", "Perplexity", 1, "lower", "exp(loss): among how many tokens it wavers at each step"),
    Measure("bits_per_byte", "Bits per byte", 3, "lower", "the same, independent of the tokenizer"),
    Measure("token_accuracy", "Token accuracy", 1, "higher", "percent of the reply tokens that were its first choice"),
    Measure("chrf", "chrF", 1, "higher", "likeness of its own answers to the real ones in letters, 0 to 100"),
    Measure("rouge_l", "ROUGE-L", 1, "higher", "words in common with the real answers, in their order, 0 to 100"),
    Measure("exact", "Exact match", 1, "higher", "percent of its own answers that are the real ones word for word"),
)
LABEL_MEASURES = (
    Measure("accuracy", "Accuracy", 1, "higher", "percent of the questions whose label was right"),
    Measure("macro_f1", "Macro-F1", 1, "higher", "mean F1 score of the labels, so that rare ones count as much"),
)
ALWAYS = ("loss", "perplexity", "bits_per_byte", "chrf")  # shown even where they are missing: that is said

LIMITS = (
    "The loss says how well the model expects the replies that people really gave. It does not say that an answer of "
    "its own is true.",
    "A small model invents: names, prices, dates and promises can be wrong, and sound right. Have a person read what "
    "goes to a customer.",
    "chrF counts letters in common with one reference. A good answer in other words scores low.",
    "The base is shown at its best: it was tried with its own prompt and with the system message of the data, and the "
    "one with the lower test loss counts.",
    "The test split comes from the same source as the training data. Other topics, other years, other writers may give "
    "other figures.",
)

LIMITS_FROM_NOTHING = (
    "The model has read this text and nothing else. It writes in its manner; what it says need not be true, and "
    "outside of what the text is about it knows nothing.",
    "Bits per byte say how well it expects text of this kind. They compare with other models on the same text only.",
    *LIMITS[1:3],
    LIMITS[4],
)

LIMITS_OF_ANSWERS = (
    "Only answers were compared: the service does not tell how likely a text is, so there is no loss, and nothing is "
    "said of what the model knows by heart, forgot or leans to.",
    *LIMITS[1:3],
    "Both models read the same questions, with the system message of the data where it has one.",
    LIMITS[4],
)


def limits(held_out: Mapping[str, Any]) -> tuple[str, ...]:
    """What the figures do not say."""
    if held_out.get("answers_only"):
        return LIMITS_OF_ANSWERS
    return LIMITS_FROM_NOTHING if held_out.get("from_nothing") else LIMITS


def measures(held_out: Mapping[str, Any]) -> tuple[Measure, ...]:
    """The rows of the result: those that every report has, and of the others those that were measured."""
    always = ALWAYS[-1:] if held_out.get("answers_only") else ALWAYS
    return tuple(each for each in MEASURES if each.key in always or held_out["tuned"].get(each.key) is not None)


def base_name(held_out: Mapping[str, Any]) -> str:
    """What the model is called that the trained one is compared with."""
    return "untrained" if held_out.get("from_nothing") else "base"


def number(value: float | None, decimals: int, *, signed: bool = False) -> str:
    """A figure for people: thousands separated, a true minus sign, a dash when there is none.

    >>> number(-1234.5, 1), number(0.25, 2, signed=True), number(-0.0004, 3), number(None, 1)
    ('−1,234.5', '+0.25', '0.000', '–')
    """
    if value is None:
        return MISSING
    text = f"{abs(value):,.{decimals}f}"
    if not text.strip("0.,"):
        return text  # no sign before a zero
    return ("−" if value < 0 else "+" if signed else "") + text


def interval(estimate: Estimate | None, decimals: int, *, signed: bool = False) -> str:
    """``low to high``, or nothing.

    >>> interval({"value": 2.0, "low": 1.5, "high": 2.5}, 1)
    '1.5 to 2.5'
    """
    if estimate is None:
        return ""
    return " to ".join(number(estimate[bound], decimals, signed=signed) for bound in ("low", "high"))


def change(held_out: Mapping[str, Any]) -> str:
    """How the test loss moved: ``helped``, ``harmed``, ``unclear`` (zero lies in the interval) or ``unknown``.

    With preferences alone: whether training raised the better replies more than the worse ones. Of models that were
    compared by their answers: how these moved.

    >>> change({"improvement": {"value": 25.0, "low": 22.0, "high": 28.0}, "groups": 50})
    'helped'
    """
    if (found := _pairs_alone(held_out)) is not None:
        if held_out["groups"] < 2:
            return "unclear"
        return "helped" if found["low"] > 0.5 else "harmed" if found["high"] < 0.5 else "unclear"
    if held_out.get("answers_only"):
        moved = _answers_alone(held_out)[2]
        if moved is None:
            return "unknown"
        if answer_groups(held_out) < 2:
            return "unclear"
        return "helped" if moved["low"] > 0 else "harmed" if moved["high"] < 0 else "unclear"
    improvement = held_out["improvement"]
    if improvement is None:
        return "unknown"
    if held_out["groups"] < 2:
        return "unclear"
    if improvement["low"] > 0:
        return "helped"
    return "harmed" if improvement["high"] < 0 else "unclear"


def headline(held_out: Mapping[str, Any]) -> str:
    """The result in one line; of preferences alone it is about pairs."""
    if (found := _pairs_alone(held_out)) is not None:
        return (
            f"Training raised the better reply more in {_share(found)[0]} % of "
            f"{held_out['preferences']['pairs']:,} held-out pairs (95 % interval {_share(found)[1]} %)"
        )
    if held_out.get("answers_only"):
        return _of_answers_alone(held_out)
    if change(held_out) == "unknown":
        return "The held-out loss could not be compared"
    if held_out.get("from_nothing") and change(held_out) == "helped":
        bits = held_out["tuned"]["bits_per_byte"]
        return f"From nothing to {number(bits['value'], 2)} bits per byte of held-out text ({interval(bits, 2)})"
    base, tuned = (number(held_out[side]["loss"]["value"], 2) for side in ("base", "tuned"))
    match change(held_out):
        case "helped":
            return f"Held-out loss fell from {base} to {tuned} ({percent(held_out)})"
        case "harmed":
            return f"Held-out loss rose from {base} to {tuned} ({percent(held_out)})"
    return f"No clear change: held-out loss {base} before, {tuned} after ({percent(held_out)})"


def percent(held_out: Mapping[str, Any]) -> str:
    """The relative change of the loss with its interval, as ``−25 %, 95 % interval −28 to −22 %``."""
    improvement = held_out["improvement"]
    values = {"value": -improvement["value"], "low": -improvement["high"], "high": -improvement["low"]}
    decimals = 1 if max(abs(value) for value in values.values()) < 10 else 0
    text = f"{number(values['value'], decimals, signed=True)} %"
    if held_out["groups"] < 2:
        return text
    return f"{text}, 95 % interval {interval(values, decimals, signed=True)} %"


def verdict(held_out: Mapping[str, Any]) -> str:
    """What to think of it, also when the training did not help."""
    many = f"{held_out['records']:,} test record" + ("" if held_out["records"] == 1 else "s")
    if _pairs_alone(held_out) is not None:
        return " ".join(filter(None, [_of_pairs(held_out), _of_answers(held_out)]))
    if held_out.get("answers_only"):
        return _verdict_of_answers(held_out)
    match change(held_out):
        case "unknown":
            return "There was nothing to divide by: see the notes."
        case "helped" if held_out.get("from_nothing"):
            first = f"The model had read nothing before: from this text alone it learned to expect {many} it never saw."
        case "helped":
            first = f"Training helped: on {many} that it never saw, the tuned model finds the real replies likelier."
        case "harmed":
            first = (
                f"Training did harm: on {many} that it never saw, the tuned model finds the real replies less likely "
                "than the base does. Keep the base, or try fewer epochs, a lower learning rate, or more data."
            )
        case _ if held_out["groups"] < 2:
            first = "All test records belong to one group, so chance cannot be told from effect: no interval is given."
        case _:
            first = (
                f"Training made no difference that {many} can show: the interval reaches over zero. More data would "
                "show more, or give the model more to learn from."
            )
    return " ".join(filter(None, [first, _of_answers(held_out), _of_size(held_out)]))


def _answers_alone(held_out: Mapping[str, Any]) -> tuple[Measure, Mapping[str, Any], Estimate | None]:
    """Where only answers were compared: the measure that counts, both models' figures, and the difference."""
    labels = held_out.get("labels")
    measure = LABEL_MEASURES[0] if labels else next(each for each in MEASURES if each.key == "chrf")
    sides = labels or held_out
    found: Estimate | None = sides["difference"][measure.key]
    return measure, {side: sides[side][measure.key] for side in ("base", "tuned")}, found


def _of_answers_alone(held_out: Mapping[str, Any]) -> str:
    measure, figures, moved = _answers_alone(held_out)
    if moved is None:
        return "The answers could not be compared"
    base, tuned = (number(figures[side]["value"], 1) for side in ("base", "tuned"))
    by = number(moved["value"], 1, signed=True)
    if answer_groups(held_out) > 1:
        by += f", 95 % interval {interval(moved, 1, signed=True)}"
    match change(held_out):
        case "helped":
            return f"{measure.title} of its answers rose from {base} to {tuned} ({by})"
        case "harmed":
            return f"{measure.title} of its answers fell from {base} to {tuned} ({by})"
    return f"No clear change: {measure.title} of the answers {base} before, {tuned} after ({by})"


def _verdict_of_answers(held_out: Mapping[str, Any]) -> str:
    many = f"{held_out['answers']:,} question" + ("" if held_out["answers"] == 1 else "s")
    first = {
        "unknown": "There was no question that both models answered: see the notes.",
        "helped": f"Training helped: to {many} that it never saw, it answers more like the real replies.",
        "harmed": f"Training did harm: to {many} that it never saw, it answers less like the real replies.",
        "unclear": f"Training made no difference that {many} can show: more (evaluate.answers) would show more.",
    }[change(held_out)]
    first = _ONE_GROUP if held_out["answers"] and answer_groups(held_out) < 2 else first
    return " ".join(filter(None, [first, _of_size(held_out)]))


def _pairs_alone(held_out: Mapping[str, Any]) -> Estimate | None:
    """Where there are preferences only: the share of pairs whose better reply gained more by training."""
    found = held_out.get("preferences")
    rewarded: Estimate | None = found["rewarded"] if found is not None and held_out.get("preferences_only") else None
    return rewarded


def _of_pairs(held_out: Mapping[str, Any]) -> str:
    match change(held_out):
        case "helped":
            return "Training taught the preference: it holds for pairs that it never saw."
        case "harmed":
            return (
                "Training did harm: it raised the worse replies more. Look whether chosen and rejected are exchanged."
            )
    return "What it learned of the preference cannot be told from chance with so few pairs: more would show more."


def _share(estimate: Estimate) -> tuple[str, str]:
    """A share in percent, and its interval."""
    percent = {bound: 100 * value for bound, value in estimate.items()}
    return number(percent["value"], 0), interval(percent, 0)


_ONE_GROUP = "Of its own answers nothing can be said: all questions that it answered belong to one group."


def answer_groups(held_out: Mapping[str, Any]) -> int:
    """Groups of the questions that were answered; reports of before have those of all records only.

    >>> answer_groups({"groups": 50, "answer_groups": 12}), answer_groups({"groups": 50})
    (12, 50)
    """
    return int(held_out.get("answer_groups", held_out["groups"]))


def answers_are_worse(held_out: Mapping[str, Any]) -> bool:
    """Did its own answers move away from the real ones, or name the right label less often, beyond the interval?"""
    if held_out.get("from_nothing") or answer_groups(held_out) < 2:
        return False
    labels = (held_out.get("labels") or {}).get("difference")
    difference = labels["accuracy"] if labels else held_out["difference"].get("chrf")
    return difference is not None and difference["high"] < 0


def _of_answers(held_out: Mapping[str, Any]) -> str:
    if held_out.get("from_nothing"):
        return ""
    if (held_out.get("labels") or {}).get("difference"):
        return _ONE_GROUP if answer_groups(held_out) < 2 else _of_labels(held_out["labels"])
    difference = held_out["difference"]["chrf"]
    if difference is None:
        return ""
    if answer_groups(held_out) < 2:
        return _ONE_GROUP
    base, tuned = (number(held_out[side]["chrf"]["value"], 1) for side in ("base", "tuned"))
    values = f"from {base} to {tuned}"
    if difference["low"] > 0:
        return f"Its own answers came closer to the real ones (chrF {values})."
    if difference["high"] < 0:
        return f"Its own answers moved away from the real ones (chrF {values}): read some before you use it."
    return f"Its own answers did not come measurably closer to the real ones (chrF {values})."


def _of_labels(labels: Mapping[str, Any]) -> str:
    difference = labels["difference"]["accuracy"]
    if difference is None:
        return ""
    base, tuned = (number(labels[side]["accuracy"]["value"], 0) for side in ("base", "tuned"))
    values = f"{tuned} % right, the base {base} %; difference {interval(difference, 0, signed=True)} points"
    if difference["low"] > 0:
        return f"It names the right label more often ({values})."
    if difference["high"] < 0:
        return f"It names the right label less often ({values})."
    return f"It does not name the right label measurably more often ({values})."


def _of_size(held_out: Mapping[str, Any]) -> str:
    if 2 <= held_out["groups"] < FEW_GROUPS:
        return f"With {held_out['groups']} groups only, the intervals are too narrow: take them as a hint."
    if 2 <= answer_groups(held_out) < FEW_GROUPS and not held_out.get("from_nothing"):
        return f"Its answers are of {answer_groups(held_out)} groups only: take their intervals as a hint."
    return ""


def preferences(held_out: Mapping[str, Any]) -> list[str]:
    """What the pairs of the test split say, in sentences; nothing where there are none.

    >>> share = {"value": 0.75, "low": 0.5, "high": 1.0}
    >>> found = {"pairs": 4, "base": share, "tuned": share, "difference": None, "rewarded": share, "margin": None}
    >>> preferences({"preferences": found})[1]
    'Training raised the better reply more than the worse one in 75 % of them (50 to 100 %).'
    """
    found = held_out.get("preferences")
    if found is None:
        return []

    def share(name: str) -> str:
        value, bounds = _share(found[name])
        return f"{value} % of them ({bounds} %)"

    many = f"{found['pairs']:,} preference pair" + ("" if found["pairs"] == 1 else "s")
    lines = [
        f"{many} of the test split: by token, the better reply is the likelier one in {share('base')} for the base, in "
        f"{share('tuned')} for the tuned model.",
        f"Training raised the better reply more than the worse one in {share('rewarded')}.",
    ]
    if found["margin"] is not None:
        lines[1] = lines[1][:-1] + f", by {number(found['margin']['value'], 2, signed=True)} nats on average."
    return lines
