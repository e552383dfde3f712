"""The page of ``ownchat compare``: the same form as a run's report, one file without requests to anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ownchat import artifacts
from ownchat.pipeline.compare import Comparison, Facts, better_ones, verdict_line

FOLDER = "compare"  # in the home
LONGEST_NAME = 120  # bytes of a file's name that names of runs may take


def default_place(comparison: Comparison) -> Path:
    """``$OWNCHAT_HOME/compare/A--B.html``."""
    name = "--".join(run.name for run in comparison.runs)
    return artifacts.home() / FOLDER / f"{name.encode()[:LONGEST_NAME].decode(errors='ignore')}.html"


@artifacts.owner_only()
def write(comparison: Comparison, file: Path) -> None:
    """Atomically; folders that are missing are made."""
    artifacts.write_atomic(file, render_comparison(comparison))


def render_comparison(comparison: Comparison) -> str:
    """The page: who is better in words, then the figures with intervals drawn, and at the end what to do."""
    from ownchat.evaluate import cells, charts, sections, wording
    from ownchat.evaluate.page import public_setting, render

    runs, first = comparison.runs, comparison.runs[0].name
    verdicts = [(verdict_line(first, name, found), _colour(found)) for name, found in comparison.paired.items()]
    measured = {name: found for name, found in comparison.paired.items() if isinstance(found, dict)}
    scales = {}  # one for each measure: a loss and bits per byte are no lengths of one kind
    for measure in {found["measure"] for found in measured.values()}:
        of_measure = [found["difference"] for found in measured.values() if found["measure"] == measure]
        scales[measure] = _turned(cells.scale_of(of_measure, 0.0))
    pairs = [
        {"name": name, **found, "svg": cells.forest(_gain(found["difference"]), scales[found["measure"]])}
        for name, found in measured.items()
    ]
    return render(
        "compare.html.j2",
        headline=_headline(comparison),
        verdicts=verdicts,
        runs=runs,
        first=first,
        pairs=pairs,
        measures=_measures(runs, [*wording.MEASURES, *wording.LABEL_MEASURES]),
        differing={
            key: [public_setting(key, value) for value in values] for key, values in comparison.differing.items()
        },
        facts=_facts(runs, wording, sections),
        chart=charts.compare_chart([(run.name, run.curve) for run in runs]),
        recommendation=comparison.recommendation,
    )


def _headline(comparison: Comparison) -> str:
    measured = {name: found for name, found in comparison.paired.items() if isinstance(found, dict)}
    first = comparison.runs[0].name
    if not measured:
        return "These runs cannot be compared yet"
    better, chosen = better_ones(comparison.paired), comparison.recommendation["run"]
    if better:
        if chosen in better:
            return f"{chosen} is better than {first}"
        return f"{better[0]} is better than {first}, but does not meet its requirements"
    if all(found["verdict"] == "worse" for found in measured.values()):
        return f"{first} is better than {' and '.join(measured)}"
    return f"No run is clearly better than {first}"


def _colour(found: dict[str, Any] | str) -> str:
    """The class of a verdict."""
    verdict = found if isinstance(found, str) else found["verdict"]
    return {"better": "helped", "worse": "harmed"}.get(verdict, "unclear")


def _gain(difference: dict[str, float]) -> dict[str, float]:
    """How much better the second run is: the loss is better when it is lower."""
    return {"value": -difference["value"], "low": -difference["high"], "high": -difference["low"]}


def _turned(scale: Any) -> Any:
    return type(scale)(-scale.high, -scale.low, scale.width)


def _measures(runs: tuple[Facts, ...], measures: list[Any]) -> list[dict[str, Any]]:
    """A row for each measure that any of the runs has, with the tuned model of each drawn on one scale."""
    from ownchat.evaluate import cells

    rows = []
    for measure in measures:
        found = [run.held_out.get("tuned", {}).get(measure.key) for run in runs]
        if any(found):
            rows.append({"measure": measure, "estimates": found, "svg": cells.stacked(found)})
    return rows


def _facts(runs: tuple[Facts, ...], wording: Any, sections: Any) -> list[tuple[str, list[str]]]:
    from ownchat.evaluate.training_facts import duration, memory

    def each(value: Any) -> list[str]:
        return [value(run) or wording.MISSING for run in runs]

    def number(run: Facts, key: str) -> str:
        return str(wording.number(run.training.get(key), 0))

    return [
        ("Status", each(lambda run: run.status)),
        ("Requirements", each(lambda run: {True: "met", False: "not met", None: ""}[run.promoted])),
        ("Records (train, valid, test)", each(lambda run: ", ".join(f"{n:,}" for n in run.records.values()))),
        ("Tokens to train on", each(lambda run: wording.number(run.tokens, 0))),
        ("Steps", each(lambda run: number(run, "steps"))),
        ("Tokens per second", each(lambda run: number(run, "tokens_per_second"))),
        ("Peak memory", each(lambda run: memory(run.training.get("peak_memory_bytes")))),
        ("Time of training", each(lambda run: duration(run.training.get("seconds")))),
        ("Time in all", each(lambda run: duration((run.cost or {}).get("seconds")))),
        ("Energy", each(lambda run: sections.energy((run.cost or {}).get("watt_hours")))),
    ]
