"""``ownchat compare``: what differs between runs, what they reached, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from ownchat import artifacts
from ownchat.artifacts import CLEAN, REPORT, SPLITS, TOKENS, read_json
from ownchat.config import FROM_NOTHING
from ownchat.errors import RunError, UserError, printable
from ownchat.pipeline.run import elapsed_text
from ownchat.pipeline.runs import status

BARS = "▁▂▃▄▅▆▇█"
CELL = 30  # characters of a run's column at most
UNKNOWN = "-"


@dataclass(frozen=True)
class Facts:
    """What a run's directory says; None or empty: it has not come so far."""

    name: str
    called: str  # on a command line
    status: str
    settings: dict[str, Any]  # {"train.epochs": 2.0}, derived values included
    records: dict[str, int]  # by split
    tokens: int | None  # to train on
    trained_tokens: int | None
    training: dict[str, Any]  # figures of the training stage
    curve: list[tuple[int, float]]  # step, validation loss
    held_out: dict[str, Any]  # base and tuned: {measure: {value, low, high}} of those that were measured
    promoted: bool | None = None  # whether all requirements are met; None: there are none
    cost: dict[str, Any] | None = None  # seconds, watt_hours, how


@dataclass(frozen=True)
class Comparison:
    """Runs beside the first of them. ``paired``: for each other one the paired figures, or why there are none.
    ``recommendation``: ``{run, text, command, why}``; ``run``: the name of the chosen one, or nothing."""

    runs: tuple[Facts, ...]
    differing: dict[str, list[Any]]  # settings that are not the same everywhere, in the order of the runs
    paired: dict[str, dict[str, Any] | str]
    recommendation: dict[str, str]


def compare(names: Sequence[str]) -> Comparison:
    """Raises :class:`~ownchat.errors.UserError` for less than two runs, and for a name that is no run."""
    if len(set(names)) < 2:
        raise UserError("give two runs or more", where="compare", fix="ownchat runs lists them")
    found = [(name, artifacts.existing_run(name)) for name in dict.fromkeys(names)]
    runs = tuple(facts(run) for _, run in found)
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    differing = {key: row for key, row in values.items() if any(value != row[0] for value in row)}
    first, *others = [run for _, run in found]
    pairs = {run.name: _paired(first, run) for run in others}
    return Comparison(runs, differing, pairs, recommend(runs, pairs))


def facts(run: Path) -> Facts:
    """Raises :class:`~ownchat.errors.RunError` for a directory that is no run."""
    if not (run / "config.yaml").is_file():
        raise RunError("this is not a run of ownchat", where=str(run), fix="ownchat runs lists them")
    from ownchat.evaluate.recommendation import called
    from ownchat.evaluate.report import metrics, trained_in, training

    sections = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")) or {}
    settings = {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}
    cleaned, tokens = _counts(run / CLEAN), _counts(run / TOKENS)
    losses = {
        row["step"]: row["validation_loss"]
        for row in metrics(trained_in(run))
        if row.get("validation_loss") is not None
    }  # fmt: skip
    report = run / REPORT / "report.json"
    contents = read_json(report) if report.is_file() else {}
    return Facts(
        name=run.name,
        called=called(run),
        status=status(run),
        settings=settings,
        records={split: cleaned[split] for split in SPLITS if split in cleaned},
        tokens=_sum(tokens, "tokens"),
        trained_tokens=_sum(tokens, "trained"),
        training={key: value for key, value in training(trained_in(run)).items() if value is not None},
        curve=sorted(losses.items()),
        held_out=_figures(contents.get("held_out")),
        promoted=(contents.get("gates") or {}).get("passed"),
        cost=contents.get("cost"),
    )


def _figures(held_out: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Of base and tuned, the measures of the report and, where replies are labels, those of labels."""
    if held_out is None:
        return {}
    labels = held_out.get("labels") or {}
    found = {}
    for who in ("base", "tuned"):
        of_labels = {key: value for key, value in (labels.get(who) or {}).items() if key in ("accuracy", "macro_f1")}
        found[who] = {key: value for key, value in (held_out[who] | of_labels).items() if value is not None}
    return found


def _counts(stage: Path) -> dict[str, int]:
    manifest = stage / artifacts.MANIFEST
    return read_json(manifest)["report"]["counts"] if manifest.is_file() else {}


def _sum(counts: dict[str, int], what: str) -> int | None:
    """Of the train split: documents and preferences."""
    found = [counts[key] for key in (f"train_{what}", f"prefer_train_{what}") if key in counts]
    return sum(found) if found else None


def _paired(first: Path, second: Path) -> dict[str, Any] | str:
    from ownchat.evaluate import paired
    from ownchat.evaluate.recommendation import called

    scores = []
    for run in (first, second):
        if not (run / REPORT / artifacts.MANIFEST).is_file():
            return f"{run.name} is not evaluated: {status(run)}"
        if artifacts.is_hosted(run):
            return f"{run.name} was trained at a service, which tells no losses to compare"
        if (found := paired.load(run / REPORT)) is None:
            return f"{run.name} was evaluated without scores of its records; once more: ownchat evaluate {called(run)}"
        scores.append(found)
    result = paired.paired(*scores)
    if result is None:
        return f"{first.name} and {second.name} share no test record: their losses do not compare"
    return asdict(result) | {"verdict": result.verdict}


def recommend(runs: Sequence[Facts], pairs: Mapping[str, dict[str, Any] | str]) -> dict[str, str]:
    """Which of the runs to use: of those that meet their requirements, the one that is better than the first by the
    largest part; of those that cannot be told apart, the first. One that does not meet its requirements is
    recommended to nobody: where no other is left, its answers are to be read."""
    by_name = {run.name: run for run in runs}
    first, measured = runs[0].name, _measured(pairs)
    if not measured:
        why = "; ".join(str(found) for found in pairs.values())
        return {"run": "", "text": "They cannot be compared yet.", "command": "ownchat runs", "why": why}
    better = better_ones(pairs)
    equal = [name for name, found in measured.items() if found["verdict"] == "no clear difference"]
    candidates = better or [first, *(name for name in equal if by_name[name].promoted)]
    met = [name for name in candidates if by_name[name].promoted is not False]
    if not met and by_name[first].promoted:
        met = [first]
    chosen, unmet = (met or candidates)[0], "does not meet its requirements"
    if not met:
        what = f"has the best figures but {unmet}" if better else f"{unmet}, and none of the others is better"
        return _advice(by_name[chosen], f"{chosen} {what}: read its answers before you use it.", "see evaluate.require")
    text = f"Use {chosen}."
    if candidates[0] != chosen:
        figures = "better figures" if better else "figures that cannot be told from these"
        text += f" {candidates[0]} has {figures}, but {unmet}."
    elif not better and len(equal) == len(measured):
        text = f"They cannot be told apart: keep {chosen}, or the one that costs least."
    why = "; ".join(verdict_line(first, name, found) for name, found in measured.items())
    return _advice(by_name[chosen], text, why, read=False)


def _measured(pairs: Mapping[str, dict[str, Any] | str]) -> dict[str, dict[str, Any]]:
    return {name: found for name, found in pairs.items() if isinstance(found, dict)}


def better_ones(pairs: Mapping[str, dict[str, Any] | str]) -> list[str]:
    """The names of those that are better than the first, the best one first: by the part of the first one's value
    that they gain, since bits per byte stand beside losses where the tokens differ."""
    measured = _measured(pairs)

    def relative(name: str) -> float:
        found = measured[name]
        return float(found["difference"]["value"] / (found["first"]["value"] or 1.0))

    return sorted((name for name, found in measured.items() if found["verdict"] == "better"), key=relative)


def _advice(run: Facts, text: str, why: str, *, read: bool = True) -> dict[str, str]:
    from ownchat.evaluate.recommendation import read_command

    alone = not read or run.settings.get("model.base") == FROM_NOTHING
    return {"run": run.name, "text": text, "command": read_command(run.called, from_nothing=alone), "why": why}


# ------------------------------------------------------------------------------------------------------ printing


def lines(comparison: Comparison) -> list[str]:
    """The comparison for people."""
    from ownchat.evaluate.page import public_setting

    runs = comparison.runs
    low, high = _span(loss for run in runs for _, loss in run.curve)

    def each(title: str, value: Callable[[Facts], str]) -> list[str]:
        return [f"  {title}", *map(value, runs)]

    table = [["", *(run.name for run in runs)], each("status", lambda run: run.status)]
    if comparison.differing:
        table.append(["Settings that differ"])
        differing = comparison.differing.items()
        table += [[f"  {key}", *(public_setting(key, value) for value in values)] for key, values in differing]
    table += [
        ["Data"],
        each("records (train, valid, test)", lambda run: ", ".join(f"{n:,}" for n in run.records.values())),
        each("tokens to train on", lambda run: _number(run.tokens)),
        each("  of them trained", lambda run: _number(run.trained_tokens)),
        ["Training"],
        each("steps", lambda run: _number(run.training.get("steps"))),
        each("tokens/s", lambda run: _number(run.training.get("tokens_per_second"))),
        each("peak memory, GB", lambda run: _number(run.training.get("peak_memory_bytes"), 1e9, 2)),
        each("time", lambda run: elapsed_text(run.training["seconds"]) if "seconds" in run.training else ""),
        ["Validation loss"],
        each("base", lambda run: f"{run.curve[0][1]:.4f}" if run.curve and run.curve[0][0] == 0 else ""),
        each("best (step)", _best),
        each("last (step)", lambda run: f"{run.curve[-1][1]:.4f} ({run.curve[-1][0]})" if run.curve else ""),
        each("curve", lambda run: sparkline([loss for _, loss in run.curve], low, high)),
        ["Held-out loss (test), 95 %"],
        each("base", lambda run: _interval(run.held_out.get("base", {}).get("loss"))),
        each("tuned", lambda run: _interval(run.held_out.get("tuned", {}).get("loss"))),
    ]  # fmt: skip
    cut = [[row[0], *(cell or UNKNOWN for cell in map(_short, row[1:]))] for row in table]
    widths = [max(map(len, column)) for column in zip_longest(*cut, fillvalue="")]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in cut]
    advice = comparison.recommendation
    verdicts = [verdict_line(runs[0].name, name, found) for name, found in comparison.paired.items()]
    return [*shown, "", *verdicts, "", printable(advice["text"]), f"$ {printable(advice['command'])}"]


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """A curve in one line of characters; the newest :data:`CELL` values.

    >>> sparkline([3.0, 2.0, 1.5, 1.0], 1.0, 3.0)
    '█▅▃▁'
    """
    top = len(BARS) - 1
    height = [round(top * (value - low) / (high - low)) if high > low else 0 for value in values[-CELL:]]
    return "".join(BARS[min(top, max(0, at))] for at in height)


def _span(values: Iterable[float]) -> tuple[float, float]:
    known = list(values) or [0.0]
    return min(known), max(known)


def verdict_line(first: str, second: str, found: dict[str, Any] | str) -> str:
    """In one line, whether the second run is better than the first."""
    if isinstance(found, str):
        return found
    difference, records = found["difference"], f"{found['records']:,} shared test records"
    what = {"loss": "loss", "bits_per_byte": "bits per byte (other tokens)"}[found["measure"]]
    said = {
        "better": f"{second} is better than {first}",
        "worse": f"{second} is worse than {first}",
        "no clear difference": f"no clear difference between {second} and {first}",
    }[found["verdict"]]
    return (
        f"{said}: {what} {difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}] "
        f"on {records} in {found['groups']:,} groups, paired bootstrap"
    )


def _best(run: Facts) -> str:
    later = [(loss, step) for step, loss in run.curve if step]
    return f"{min(later)[0]:.4f} ({min(later)[1]})" if later else ""


def _interval(found: dict[str, float] | None) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" if found else ""


def _number(value: float | None, unit: float = 1, digits: int = 0) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= CELL else f"...{text[-CELL + 3 :]}"
