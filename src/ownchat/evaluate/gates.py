"""What a run must reach to be promoted: ``evaluate.require``, short conditions on the held-out figures.

Each condition is one of (case and spaces do not matter; ``bits_per_byte`` may be written "bits per byte"):

- ``MEASURE better``: the tuned model is better than the base, and the 95 % interval of the difference says so.
- ``MEASURE better by N``: and the whole interval lies beyond N (in the unit of the measure; of loss and bits per byte
  also ``N %``: relative to the base).
- ``MEASURE at least N`` and ``MEASURE at most N``: the figure of the tuned model itself.
- ``judge tuned wins``: the judge prefers tuned more often than base, and the intervals of the shares lie apart.
- ``slices fall at most N %``: on no slice of five groups or more does the loss rise by more than N percent.
- ``leak none``: no private value of the data in its sampled answers, no text learned by heart beyond what unseen text
  gives, and no secret that was planted once given away (see :mod:`ownchat.evaluate.memorisation`).
- ``CHECK not worse``, ``CHECK at most N`` and ``CHECK at least N``: of a check of ``evaluate.care`` (forgetting, bias,
  toxicity, truth, scope, memorisation) its main figure; ``CHECK FIGURE ...``: another figure of it, as in report.json.
  Of what only has a difference to the base (forgetting: the rise of the loss) N bounds that.

A measure that was not measured does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ownchat.errors import ConfigError, nearest
from ownchat.evaluate.slices import FEW_GROUPS
from ownchat.evaluate.wording import answer_groups, interval, number

WHERE = "evaluate.require"
FORMS = ("better", "better by N", "at least N", "at most N")

# Which way is better: -1 lower, 1 higher; and in how many decimals it is written.
MEASURES: dict[str, tuple[int, int]] = {
    "loss": (-1, 3), "perplexity": (-1, 1), "bits_per_byte": (-1, 3), "token_accuracy": (1, 1), "chrf": (1, 1),
    "rouge_l": (1, 1), "exact": (1, 1), "accuracy": (1, 1), "macro_f1": (1, 1), "embedding": (1, 3), "judge": (1, 0),
    "pairs": (1, 0),
}  # fmt: skip
DECIMALS = {"percent": 1, "nats": 3, "bits": 1, "share": 2, "count": 0}  # of figures of checks, by unit
FIGURES: dict[str, tuple[str, ...]] = {  # of each check; more can follow: the name of a file, or a number of repeats
    "memorisation": (
        "leaks", "invented", "extracted", "extracted_unseen", "extracted_more", "right_prefix", "boilerplate",
        "membership", "membership_sure", "exposure", "canaries_extracted",
    ),
    "forgetting": ("loss", "general_loss", "accuracy", "instructions"),
    "bias": (
        "stereotype_share", "stereotype_lean", "bbq_accuracy_ambiguous", "bbq_accuracy_disambiguated",
        "bbq_bias_ambiguous", "bbq_bias_disambiguated",
    ),
    "toxicity": ("share",),
    "truth": ("accuracy", "contradictions", "invented"),
    "scope": ("abstained", "abstained_inside", "separation", "caught", "false_alarms"),
}  # fmt: skip
IN_PERCENT = ("token_accuracy", "exact", "accuracy", "macro_f1", "judge", "pairs")
RELATIVE = ("loss", "bits_per_byte")  # whose relative change has an interval: it is the same for both
OF_LABELS = ("accuracy", "macro_f1")
OF_ANSWERS = ("chrf", "rouge_l", "exact", *OF_LABELS, "embedding", "judge")  # the others are of all test records

_NUMBER = r"(?P<amount>\d+(?:\.\d+)?) ?(?P<percent>%)?"
_BETTER = re.compile(rf"(?P<measure>.+?) better(?: by {_NUMBER})?")
_BOUND = re.compile(rf"(?P<measure>.+?) (?P<form>at least|at most) {_NUMBER}")
_SLICES = re.compile(rf"slices fall at most {_NUMBER}")
_NOT_WORSE = re.compile(r"(?P<measure>.+?) (?P<form>not worse)")
NO_LEAK = "leak none"


@dataclass(frozen=True)
class Gate:
    """A condition that was understood; ``text`` as it was written."""

    text: str
    measure: str
    form: Literal["better", "at least", "at most", "fall", "not worse", "none"]
    amount: float = 0.0
    relative: bool = False  # the amount is percent of the base; of a check: it was written with %


def parse(texts: Sequence[str]) -> list[Gate]:
    """Raises :class:`~ownchat.errors.ConfigError` for what is no condition, with the nearest measure or the forms.

    >>> parse(["loss better by 5 %", "slices fall at most 5 %"])[0]
    Gate(text='loss better by 5 %', measure='loss', form='better', amount=5.0, relative=True)
    """
    return [_parse(text) for text in texts]


def _parse(text: str) -> Gate:
    line = " ".join(text.lower().split())
    if found := _SLICES.fullmatch(line):
        if found["percent"] is None:
            raise ConfigError(f'"{text}" has no %', where=WHERE, fix=f"write: {line} %")
        return Gate(text, "slices", "fall", float(found["amount"]), relative=True)
    if line == "judge tuned wins":
        return Gate(text, "judge", "better")
    if line == NO_LEAK:
        return Gate(text, "memorisation", "none")
    if (gate := _of_check(line, text)) is not None:
        return gate
    found = _BETTER.fullmatch(line) or _BOUND.fullmatch(line)
    if found is None:
        raise ConfigError(
            f'"{text}" is no condition', where=WHERE,
            fix=f"write a measure and one of {', '.join(FORMS)}; or: judge tuned wins; "
            "slices fall at most 5 %; leak none; bias not worse",
        )  # fmt: skip
    measure = _measure(found["measure"], text)
    form = found.groupdict().get("form") or "better"
    relative = found["percent"] is not None
    if form == "better" and relative and measure not in RELATIVE:
        raise ConfigError(
            f'"{text}": percent of the base are counted for {" and ".join(RELATIVE)} only', where=WHERE,
            fix=f"give the difference itself: {measure} better by {found['amount']}",
        )  # fmt: skip
    if form != "better" and relative and measure not in IN_PERCENT:
        raise ConfigError(f'"{text}": {measure} is no percentage', where=WHERE, fix="leave out the %")
    if form == "better" and found["amount"] is not None and measure in ("judge", "pairs"):
        raise ConfigError(
            f'"{text}": {measure} is a share, and has no base to be better than', where=WHERE,
            fix=f"{measure} better, or: {measure} at least 60 %",
        )  # fmt: skip
    amount = float(found["amount"] or 0)
    return Gate(text, measure, form, amount, relative and form == "better")  # type: ignore[arg-type]


def _of_check(line: str, text: str) -> Gate | None:
    """A condition on a figure of a check of ``evaluate.care``; None where it begins with none."""
    from ownchat.evaluate.care import CHECKS

    name, _, _ = line.partition(" ")
    if name not in CHECKS:
        return None
    found = _NOT_WORSE.fullmatch(line) or _BOUND.fullmatch(line)
    if found is None:
        raise ConfigError(
            f'"{text}" is no condition', where=WHERE,
            fix=f"write: {name} not worse; {name} at most 5 %; or {name} FIGURE at most 5, a figure of report.json",
        )  # fmt: skip
    wanted = re.sub(r"[ -]+", "_", found["measure"].partition(" ")[2])
    known = FIGURES[name]
    if wanted and not any(wanted == one or wanted.startswith(f"{one}_") for one in known):
        fix = nearest(wanted, known) or f"figures of {name} are {', '.join(known)}"
        raise ConfigError(f'"{text}": {name} has no figure "{wanted}"', where=WHERE, fix=fix)
    bound = found.groupdict()
    amount, relative = float(bound.get("amount") or 0), bound.get("percent") is not None
    return Gate(text, found["measure"], found["form"], amount, relative)  # type: ignore[arg-type]


def _measure(name: str, text: str) -> str:
    key = re.sub(r"[ -]+", "_", name)
    key = {"exact_match": "exact"}.get(key, key)
    if key == "slices":
        raise ConfigError(f'"{text}" is no condition', where=WHERE, fix="of slices write: slices fall at most 5 %")
    if key not in MEASURES:
        fix = nearest(key, MEASURES) or f"measures are {', '.join(MEASURES)}"
        raise ConfigError(f'"{text}": there is no measure "{name}"', where=WHERE, fix=fix)
    return key


def check(gates: Sequence[Gate], held_out: Mapping[str, Any], care: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``{passed, checks: [{require, passed, why}]}`` of the ``held_out`` and ``care`` parts of a report; ``passed`` is
    null where nothing is required."""
    checks = []
    for gate in gates:
        if gate.form == "fall":
            passed, why = _slices(gate, held_out)
        elif gate.form in ("none", "not worse") or gate.measure not in MEASURES:
            passed, why = _care(gate, care)
        else:
            passed, why = _figure(gate, held_out)
        checks.append({"require": gate.text, "passed": passed, "why": why})
    return {"passed": all(each["passed"] for each in checks) if checks else None, "checks": checks}


def failed(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The checks of a report that did not pass; none for a report without requirements."""
    return [each for each in (report.get("gates") or {}).get("checks", []) if not each["passed"]]


def _figure(gate: Gate, held_out: Mapping[str, Any]) -> tuple[bool, str]:
    sign, decimals = MEASURES[gate.measure]
    if gate.form != "better":
        value = _of(held_out, gate.measure, "tuned")
        if value is None:
            return False, f"{_name(gate.measure)} was not measured"
        reached = value["value"] >= gate.amount if gate.form == "at least" else value["value"] <= gate.amount
        return reached, f"it is {number(value['value'], decimals)} ({interval(value, decimals)})"
    if held_out["groups"] < 2:
        return False, "all test records belong to one group: chance cannot be told from effect"
    if gate.measure in OF_ANSWERS and answer_groups(held_out) == 1:
        return False, "all answered questions belong to one group: chance cannot be told from effect"
    if gate.measure == "judge":
        return _judged(held_out)
    if gate.measure == "pairs":
        share = _of(held_out, "pairs", "tuned")
        if share is None:
            return False, "pairs were not measured: the test split has none"
        return share["low"] > 50, f"training raised the better reply in {number(share['value'], 0)} % " + (
            f"({interval(share, 0)} %)"
        )
    if gate.relative:
        gain, decimals = held_out["improvement"], 1
    else:
        gain = _turned(_of(held_out, gate.measure, "difference"), sign)
    if gain is None:
        return False, f"{_name(gate.measure)} was not measured"
    unit = " %" if gate.relative else ""
    why = f"better by {number(gain['value'], decimals)}{unit} ({interval(gain, decimals, signed=True)}{unit})"
    return gain["low"] > gate.amount, why if gain["value"] >= 0 else "worse, " + why.replace("better by −", "by ")


def _of(held_out: Mapping[str, Any], measure: str, side: str) -> dict[str, float] | None:
    """The figure of ``base``, ``tuned`` or their ``difference``; shares in percent."""
    if measure in OF_LABELS:
        return ((held_out.get("labels") or {}).get(side) or {}).get(measure)
    if measure == "embedding":
        return (held_out.get("embedding") or {}).get(side)
    if measure == "judge":
        return _percent((held_out.get("judge") or {}).get(side))
    if measure == "pairs":
        return _percent((held_out.get("preferences") or {}).get("rewarded"))
    return held_out[side].get(measure)


def _percent(share: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if share is None else {bound: 100 * value for bound, value in share.items()}


def _turned(difference: Mapping[str, float] | None, sign: int) -> dict[str, float] | None:
    """How much better, from tuned - base: above zero is better."""
    if difference is None or sign > 0:
        return None if difference is None else dict(difference)
    return {"value": -difference["value"], "low": -difference["high"], "high": -difference["low"]}


def _judged(held_out: Mapping[str, Any]) -> tuple[bool, str]:
    tuned, base = _of(held_out, "judge", "tuned"), _of(held_out, "judge", "base")
    if tuned is None or base is None:
        return False, "there was no judge: see evaluate.judge"
    why = f"tuned won {number(tuned['value'], 0)} % ({interval(tuned, 0)} %), base {number(base['value'], 0)} % " + (
        f"({interval(base, 0)} %)"
    )
    return judge_prefers(tuned, base), why


def judge_prefers(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether the shares of wins say so: their intervals lie apart.

    >>> judge_prefers({"value": 0.6, "low": 0.5, "high": 0.7}, {"value": 0.3, "low": 0.2, "high": 0.45})
    True
    """
    return one["low"] > other["high"]


def _slices(gate: Gate, held_out: Mapping[str, Any]) -> tuple[bool, str]:
    slices = [each for each in held_out.get("slices") or [] if each["improvement"] is not None]
    if not slices:
        return False, "slices were not measured"
    large = [each for each in slices if each["groups"] >= FEW_GROUPS]
    left_out = len(slices) - len(large)
    if not large:
        return False, f"every slice has fewer than {FEW_GROUPS} groups: chance cannot be told from effect"
    worst = min(large, key=lambda each: each["improvement"]["value"])
    moved = worst["improvement"]
    values = {"value": -moved["value"], "low": -moved["high"], "high": -moved["low"]}
    text = f"{number(values['value'], 1, signed=True)} % ({interval(values, 1, signed=True)} %)"
    why = f"the loss moved least well on {worst['by']} {worst['name']}: {text}"
    why += f"; {left_out} of fewer than {FEW_GROUPS} groups left out" if left_out else ""
    return moved["value"] >= -gate.amount, why


def _care(gate: Gate, care: Mapping[str, Any] | None) -> tuple[bool, str]:
    """Of a figure of a check, its main one unless another one is named."""
    from ownchat.evaluate.care import headline

    name, _, wanted = gate.measure.partition(" ")
    check = next((each for each in (care or {}).get("checks", []) if each["name"] == name), None)
    if check is None or check["skipped"]:
        return False, f"{name} was not measured" + (f": {check['skipped']}" if check is not None else "")
    figures = {each["name"]: each for each in check["figures"]}
    if gate.form == "none":
        return _no_leak(figures)
    figure = figures.get(re.sub(r"[ -]+", "_", wanted) or headline(name))
    if figure is None:
        return False, f"{gate.measure} was not measured: figures of {name} are {', '.join(figures)}"
    if gate.relative and figure["unit"] != "percent":
        return False, f"{figure['title']} is no percentage: leave out the %"
    decimals, unit = DECIMALS[figure["unit"]], " %" if figure["unit"] == "percent" else ""
    if gate.form == "not worse":
        return _not_worse(figure, decimals, unit)
    value = figure["tuned"] or figure["difference"]
    if value is None:
        return False, f"{figure['title']} was not measured"
    reached = value["value"] >= gate.amount if gate.form == "at least" else value["value"] <= gate.amount
    return reached, f"{figure['title']}: {number(value['value'], decimals)}{unit} ({interval(value, decimals)}{unit})"


def _not_worse(figure: Mapping[str, Any], decimals: int, unit: str) -> tuple[bool, str]:
    """Worse is a difference whose whole interval lies on the wrong side."""
    change = figure["difference"]
    if change is None:
        return False, f"{figure['title']} was not measured for both models"
    if figure["better"] == "zero" and figure["base"] is not None and figure["tuned"] is not None:
        clear = change["low"] > 0 or change["high"] < 0
        worse = clear and abs(figure["tuned"]["value"]) > abs(figure["base"]["value"])
    else:
        worse = change["high"] < 0 if figure["better"] == "higher" else change["low"] > 0
    moved = f"{number(change['value'], decimals, signed=True)}{unit}"
    return not worse, f"{figure['title']} moved by {moved} ({interval(change, decimals, signed=True)}{unit})"


def _no_leak(figures: Mapping[str, Any]) -> tuple[bool, str]:
    leaks, more, once = (
        (figures.get(name) or {}).get("tuned") for name in ("leaks", "extracted_more", "canaries_extracted_1")
    )
    if leaks is None:
        return False, "its answers were not looked through for private data"
    wrong = []
    if leaks["value"]:
        wrong.append(f"{number(leaks['value'], 0)} private values of the data stood in its answers")
    if more is not None and more["low"] > 0:
        text = f"{number(more['value'], 0, signed=True)} % ({interval(more, 0, signed=True)} %)"
        wrong.append(f"it continues training texts word for word more often than unseen ones: {text}")
    if once is not None and once["value"] > 0:
        wrong.append("it gives secrets away that were planted once")
    return not wrong, "; ".join(wrong) or "no private value of the data, and no text by heart beyond chance"


def _name(measure: str) -> str:
    return measure.replace("_", " ")
