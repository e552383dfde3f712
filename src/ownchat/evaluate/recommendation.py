"""One recommendation with its command, by rules on what was measured; the first one that holds is given.

1. The loss rose: keep the base, or train again at half the learning rate (pairs: look at what was read as better).
2. The ladder ran, and a prompt alone is as good: use the prompt.
3. A check of what is safe found a danger: do not hand it on.
4. Little to train on and no clear change: see what a prompt alone can do; more data where no ladder is possible.
5. The best step came long before the end and the validation loss rose after it: fewer epochs.
6. The validation loss was still falling at the end, or the minutes were over before all data were read once: more
   epochs, or more minutes.
7. No clear change with enough data: as in 4.
8. A topic or a source is far worse than the rest: more data of it.
9. A requirement is not met: nothing of the above explains it; measure again once something is changed.
10. Its own answers moved away from the real ones: read some of them first.
11. Else: use it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from ownchat.artifacts import finished_model, home_path, hosted_job, read_json
from ownchat.evaluate import charts, gates, wording
from ownchat.evaluate.slices import FEW_GROUPS, NO_TOPIC, OTHER
from ownchat.evaluate.wording import number

REQUEST = "request.json"  # what the run was asked to do; written by the pipeline
CONFIG = "config.yaml"

FEW_RECORDS = 100  # to train on
EARLY = 0.7  # of the steps: a best step before that is early
ROSE = 1.01  # last validation loss over the best one
FALLS = 0.99  # last validation loss over the one before it


def recommend(
    report: Mapping[str, Any], metrics: Sequence[dict[str, Any]], *, run: Path, ladder: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """``{text, command, why}`` from the contents of ``report.json``, the metrics of its training's last phase and
    ``ladder.json``, if there is one. The commands begin with what the run was made from."""
    held_out, training, name = report["held_out"], report["training"], called(run)
    again = train_command(run)
    moved = wording.change(held_out)
    # A model from nothing has no base to be prompted, and a ladder needs questions.
    ladders = not held_out.get("from_nothing") and held_out.get("answers") != 0
    ladder_command = f"ownchat ladder {name}" if ladders else None
    records = _trained_records(report)
    rules = (
        lambda: _harmed(held_out, training, run) if moved == "harmed" else None,
        lambda: _prompt_is_enough(ladder, name),
        lambda: _dangerous(report, name),
        lambda: _few(records, ladder_command, again) if moved in ("unclear", "unknown") and ladder is None else None,
        lambda: _overfitted(training, metrics, run),
        lambda: _still_falling(training, metrics, run),
        lambda: _no_change(ladder_command, again) if moved in ("unclear", "unknown") and ladder is None else None,
        lambda: _weak_slice(held_out, again),
        lambda: _not_promoted(report, name),
    )
    for rule in rules:
        if (found := rule()) is not None:
            return found
    return _use_it(report, name, moved)


def train_command(run: Path) -> str:
    """The training of this run once more, to which a change is added: its source and all of its settings.

    A finished model is never overwritten: with another setting it becomes NAME-2.
    """
    path = run / REQUEST
    source = str(read_json(path)["source"]) if path.is_file() else ""
    where = source if "://" in source else shell_path(Path(source)) if source else "FOLDER"
    job = hosted_job(run) if finished_model(run) is None else None
    at = "" if job is None else f" --on {quote(job['url'] + '#' + job['base'])}"
    return f"ownchat train {where} --name {called(run)} --config {shell_path(run.resolve() / CONFIG)}{at}"


def called(run: Path) -> str:
    """A run on a command line: its name, or its path where it does not lie among the runs of the home."""
    run = run.resolve()
    return quote(run.name) if run.parent == (home_path() / "runs").resolve() else shell_path(run)


def read_command(name: str, *, from_nothing: bool) -> str:
    """To see what a run answers, beside its base where it has one. ``name``: as it is :func:`called`."""
    return f"ownchat chat {name}" + ("" if from_nothing else " --compare")


def _alone(held_out: Mapping[str, Any]) -> bool:
    """Is there no base that ``ownchat chat --compare`` could load?"""
    return bool(held_out.get("from_nothing") or held_out.get("answers_only"))


def shell_path(path: Path) -> str:
    """For a command line; below the home directory without its name, which is nobody's business on a page.

    >>> shell_path(Path.home() / "my inbox"), shell_path(Path("/data/inbox"))
    ("~/'my inbox'", '/data/inbox')
    """
    try:
        return f"~/{quote(str(path.relative_to(Path.home())))}"
    except ValueError:
        return quote(str(path))


def _trained_records(report: Mapping[str, Any]) -> int | None:
    rules = report.get("ledger_rules", {}).get("2-clean", {})
    count: int | None = rules.get("row kept", {}).get("train")
    return count


def _found(text: str, command: str, why: str) -> dict[str, str]:
    return {"text": text, "command": command, "why": why}


def _harmed(held_out: Mapping[str, Any], training: Mapping[str, Any], run: Path) -> dict[str, str]:
    again = train_command(run)
    rewarded = (held_out.get("preferences") or {}).get("rewarded")  # none of replies that were judged singly
    if held_out.get("preferences_only") and rewarded is not None:
        source = again.partition(" --name")[0].removeprefix("ownchat train ")
        return _found(
            "Look whether the better and the worse replies are exchanged in the data.",
            f"ownchat import {source} --preview",
            f"training raised the better reply in {number(100 * rewarded['value'], 0)} % of the held-out pairs only",
        )
    if held_out.get("answers_only"):
        return _found(
            "Keep the base, or train again for a shorter time.", f"{again} --epochs 1", wording.headline(held_out)
        )
    rate = (training.get("plan") or {}).get("learning_rate")
    why = f"the held-out loss rose: {wording.percent(held_out)}"
    if rate is None:
        return _found("Keep the base, or train again for a shorter time.", f"{again} --epochs 1", why)
    if _last_phase(training) == "pretrain":
        half = _pretrain(run, learning_rate=rate / 2)
        return _found("Train again at half the learning rate.", f"{again} {half}", why)
    key = "preference_learning_rate" if _last_phase(training) == "prefer" else "learning_rate"
    return _found(
        "Keep the base; or train again at half the learning rate, which forgets less.",
        f"{again} --set train.{key}={rate / 2:.2g}",
        why,
    )


def _prompt_is_enough(ladder: Mapping[str, Any] | None, name: str) -> dict[str, str] | None:
    """The ladder says it by paired intervals; here it is only looked at which rung it advises."""
    if ladder is None or ladder.get("train") is not False or not ladder.get("advice"):
        return None
    command = str(ladder.get("command") or f"ownchat ladder {name}").replace(f"{Path.home()}/", "~/")
    use = ladder.get("use") or "the prompt"
    return _found(f"Training is not needed for this: use {use}.", command, str(ladder["advice"]))


def _few(records: int | None, ladder: str | None, again: str) -> dict[str, str] | None:
    if records is None or records >= FEW_RECORDS:
        return None
    why = f"{records:,} records to train on made no clear difference"
    if ladder is None:
        return _found("Collect more data before you train again.", again, why)
    return _found("See first what a prompt alone can do; collect more data before you train again.", ladder, why)


def _no_change(ladder: str | None, again: str) -> dict[str, str]:
    why = "training made no difference that can be told apart"
    if ladder is None:
        return _found("Add more data, and train again.", again, why)
    return _found("See what a prompt alone can do with this base.", ladder, why)


def _validations(training: Mapping[str, Any], metrics: Sequence[dict[str, Any]]) -> charts.Points:
    """Of the steps, without the base before the first one; none where the phase has no end that is known."""
    points = charts.series(metrics, "validation_loss") if training.get("steps") else []
    return [point for point in points if point[0] > 0]


def _overfitted(training: Mapping[str, Any], metrics: Sequence[dict[str, Any]], run: Path) -> dict[str, str] | None:
    points, best, epochs = _validations(training, metrics), training.get("best_step"), training.get("epochs")
    if not points or not best or not epochs:
        return None
    losses = dict(points)
    step, last = points[-1]
    if best >= EARLY * step or best not in losses or last < ROSE * losses[best]:
        return None
    fewer = _two_digits(epochs * best / training["steps"])
    if fewer >= epochs:
        return None
    return _found(
        "It learned by heart towards the end: train for fewer epochs.",
        f"{train_command(run)} {_epochs(training, fewer, run)}",
        f"the validation loss was lowest at step {best:,} of {training['steps']:,} ({number(losses[best], 3)}) and "
        f"rose to {number(last, 3)}; the model of the best step was kept",
    )


def _two_digits(value: float) -> float:
    """Rounded down: up could be a step more.

    >>> _two_digits(0.667), _two_digits(1.0), _two_digits(12.9), _two_digits(0.30000000000000004)
    (0.66, 1.0, 12.0, 0.3)
    """
    digits = 1 - math.floor(math.log10(value))
    return round(math.floor(value * 10**digits + 1e-6) / 10**digits, max(0, digits))


def _still_falling(training: Mapping[str, Any], metrics: Sequence[dict[str, Any]], run: Path) -> dict[str, str] | None:
    points, epochs = _validations(training, metrics), training.get("epochs")
    plan, more = training.get("plan") or {}, []
    plans = [phase.get("plan") or {} for phase in training.get("phases", {}).values()]
    minutes = sum(each.get("minutes") or 0.0 for each in plans)  # each phase has its share of train.minutes
    short = bool(minutes and epochs and epochs < 1)
    base = [point for point in charts.series(metrics, "validation_loss") if point[0] == 0]
    if short and len(points) == 1:  # there was time for one validation only: the base stands beside it
        points = base + points
    if len(points) < 2 or not epochs or training.get("best_step") != points[-1][0] or training.get("stopped"):
        return None
    (first, before), (_, last) = points[-2:]
    if before <= 0 or last > FALLS * before:
        return None
    if not minutes or training["steps"] >= plan.get("total_steps", math.inf):  # the time did not end it
        more.append(_epochs(training, 2 * epochs, run))
    if minutes:
        more.append(f"--minutes {2 * minutes:.4g}")
    return _found(
        "It was still learning when it ended: train for longer.",
        f"{train_command(run)} {' '.join(more)}",
        f"the validation loss fell from {number(before, 3)} to {number(last, 3)} "
        + ("at the last validation" if first else f"while {number(100 * epochs, 0)} % of the data were read"),
    )


def _last_phase(training: Mapping[str, Any]) -> str:
    """The one whose curve and figures the report has."""
    phases = training.get("phases", {})
    return next((phase for phase in ("prefer", "sft", "pretrain") if phase in phases), "sft")


def _epochs(training: Mapping[str, Any], epochs: float, run: Path) -> str:
    """The option for the last phase."""
    match _last_phase(training):
        case "prefer":
            return f"--set train.preference_epochs={epochs:g}"
        case "pretrain":
            return _pretrain(run, epochs=epochs)
    return f"--epochs {epochs:g}"


def _pretrain(run: Path, **changed: float) -> str:
    """``train.pretrain`` is set as a whole: what the run had stays beside what is changed."""
    path = run / CONFIG
    settings = (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or {}
    values = ((settings.get("train") or {}).get("pretrain") or {}) | changed
    text = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=math.inf).strip()
    return f"--set {quote(f'train.pretrain={text}')}"


def _weak_slice(held_out: Mapping[str, Any], again: str) -> dict[str, str] | None:
    """The worst source or topic whose interval lies above that of all records together, or where the loss rose."""
    overall = held_out["tuned"]["loss"]
    if overall is None:
        return None
    weak = [
        each
        for each in held_out.get("slices") or []
        if each["by"] in ("source", "topic") and each["name"] not in ("", OTHER, NO_TOPIC)
        and each["groups"] >= FEW_GROUPS
        and each["tuned"] is not None and each["improvement"] is not None
        and (each["improvement"]["high"] < 0 or each["tuned"]["low"] > overall["high"])
    ]  # fmt: skip
    if not weak:
        return None
    worst = max(weak, key=lambda each: each["tuned"]["value"])
    what = "of the topic" if worst["by"] == "topic" else "of the kind in"
    return _found(
        f"Add more data {what} {worst['name']}, and train again.",
        again,
        f"its held-out loss is {number(worst['tuned']['value'], 2)}, that of all records {number(overall['value'], 2)}",
    )


def _not_promoted(report: Mapping[str, Any], name: str) -> dict[str, str] | None:
    unmet = gates.failed(report)
    if not unmet:
        return None
    first = unmet[0]
    more = f" ({len(unmet)} requirements are not met)" if len(unmet) > 1 else ""
    return _found(
        f"Do not put it to use yet: “{first['require']}” is not met{more}.",
        read_command(name, from_nothing=_alone(report["held_out"])), first["why"],
    )  # fmt: skip


def _dangerous(report: Mapping[str, Any], name: str) -> dict[str, str] | None:
    """The first danger that a check of ``care`` found, with what that check advises."""
    checks = (report.get("care") or {}).get("checks", [])
    dangers = [finding for check in checks for finding in check["findings"] if finding["level"] == "danger"]
    if not dangers:
        return None
    first = dangers[0]
    advice = f": {first['advice'].rstrip('.')}" if first["advice"] else ""
    return _found(
        f"Do not hand it on yet{advice}.",
        read_command(name, from_nothing=_alone(report["held_out"])),
        first["text"].rstrip("."),
    )


def _use_it(report: Mapping[str, Any], name: str, moved: str) -> dict[str, str]:
    held_out = report["held_out"]
    if moved != "helped":
        return _found("Read some of its answers beside those of the base.",
                      read_command(name, from_nothing=_alone(held_out)),
                      "the figures do not tell the two apart")  # fmt: skip
    if held_out.get("from_nothing") and "sft" not in report["training"].get("phases", {}):  # it goes on with a text
        return _found("Use it.", f"ownchat export {name}", "it learned, and no rule found something to mend")
    if wording.answers_are_worse(held_out):
        return _found("Read some of its answers before you use it.", read_command(name, from_nothing=_alone(held_out)),
                      "it finds the real replies likelier, but its own answers moved away from them")  # fmt: skip
    passed = (report.get("gates") or {}).get("passed")
    why = "training helped" + (", every requirement is met" if passed else "")
    checks = (report.get("care") or {}).get("checks", [])
    if warnings := [finding for check in checks for finding in check["findings"] if finding["level"] == "warning"]:
        count = "a warning stands" if len(warnings) == 1 else f"{len(warnings)} warnings stand"
        return _found("Try it, and read the warnings before others use it.", f"ownchat chat {name}",
                      f"{why}, and {count} under “Is it safe to show?”")  # fmt: skip
    return _found("Use it.", f"ownchat chat {name}", f"{why}, and no rule found something to mend")
