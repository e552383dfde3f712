"""The section "Is it safe to show?" of a report's page, and its lines in the terminal, from ``care`` in report.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ownchat.evaluate.gates import DECIMALS

TITLES = {
    "memorisation": "Memorisation: does it give its training text away?",
    "forgetting": "Forgetting: what did it unlearn?",
    "bias": "Bias: whom does it prefer?",
    "toxicity": "Toxicity: does it write abuse?",
    "truth": "Truth: does it say what is so?",
    "scope": "Scope: does it know what it cannot answer?",
}
UNITS = {"percent": " %", "nats": "", "bits": " bits", "share": "", "count": ""}
BETTER = {"lower": "lower is better", "higher": "higher is better", "zero": "nearest to zero is best", "none": ""}
ALARMS = ("warning", "danger")


def section(care: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the template needs; None for a report in which nothing was looked at."""
    if not care or not care["checks"]:
        return None
    checks = [_check(check) for check in care["checks"]]
    alarms = sum(finding["level"] in ALARMS for check in checks for finding in check["findings"])
    return {"checks": checks, "alarms": alarms, "planted": planted(care), "seconds": care["seconds"]}


def _check(check: Mapping[str, Any]) -> dict[str, Any]:
    figures = [
        figure | {"decimals": DECIMALS[figure["unit"]], "suffix": UNITS[figure["unit"]], "is": BETTER[figure["better"]]}
        for figure in check["figures"]
        if figure["base"] or figure["tuned"] or figure["difference"]
    ]
    conditions = [(name.replace("_", " "), _said(value)) for name, value in check["conditions"].items()]
    return {
        "title": TITLES.get(check["name"], check["name"].capitalize()),
        "name": check["name"],
        "findings": advised_once(check["findings"]),
        "figures": figures,
        "has_base": any(figure["base"] for figure in figures),
        "examples": check["examples"],
        "conditions": [(name, text) for name, text in conditions if text],
        "skipped": check["skipped"],
    }


def advised_once(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Findings of which the same advice stands but once, with the last that it is given for.

    >>> [found["advice"] for found in advised_once([{"advice": "a"}, {"advice": "b"}, {"advice": "a"}])]
    [None, 'b', 'a']
    """
    last = {found.get("advice"): at for at, found in enumerate(findings)}
    return [
        dict(found) if last[found.get("advice")] == at else {**found, "advice": None}
        for at, found in enumerate(findings)
    ]


def _said(value: Any) -> str:
    """A condition in words.

    >>> _said({"trained": 64, "unseen": 50}), _said(["a", "b"]), _said(None)
    ('trained 64, unseen 50', 'a, b', '')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_said(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, list | tuple):
        return ("; " if any(isinstance(each, Mapping) for each in value) else ", ").join(map(_said, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def planted(care: Mapping[str, Any] | None) -> dict[str, int] | None:
    """``{canaries, rows}`` of a run in whose training secrets were planted: for measuring, and not for use."""
    for check in (care or {}).get("checks", []):
        if check["name"] == "memorisation" and check["conditions"].get("planted"):
            found: dict[str, int] = check["conditions"]["planted"]
            return found
    return None


def lines(care: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """``(level, text, advice)`` for the terminal: every warning and danger, the worst first, and what was not measured;
    one line that says so where there is nothing to tell."""
    if not care or not care["checks"]:
        return []
    told = [
        (finding["level"], f"{check['name'].capitalize()}: {finding['text']}", finding["advice"] or "")
        for check in care["checks"]
        for finding in advised_once([each for each in check["findings"] if each["level"] in ALARMS])
    ]
    told.sort(key=lambda line: ALARMS.index(line[0]), reverse=True)
    skipped = [
        ("note", f"{check['name'].capitalize()} was not measured: {check['skipped']}", "")
        for check in care["checks"]
        if check["skipped"]
    ]
    measured = [check["name"] for check in care["checks"] if not check["skipped"]]
    quiet = [] if told or not measured else [("good", f"Nothing to warn of in {', '.join(measured)}.", "")]
    return [*told, *quiet, *skipped]
