"""The result as a person reads it in the terminal, made from ``report.json`` alone."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ownchat.artifacts import REPORT
from ownchat.errors import printable
from ownchat.evaluate import care_page, gates, wording
from ownchat.evaluate.page import HTML, SHOWN, STAGES, ledger_tables
from ownchat.evaluate.training_facts import training_facts

WIDTH = 80
REPLY_CHARACTERS = 320  # of an answer in the terminal; the page has all of it


def summary(report: Mapping[str, Any], *, width: int = WIDTH, color: bool = False) -> str:
    """The printed result, no line longer than ``width``; without ``color`` plain text that a pipe can take.

    Base against tuned with intervals, the first questions with both answers, what the ledger says, the training's
    figures, requirements that are not met, what is recommended, where the model lies and how to go on.
    """
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    console.print(_result(report))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _result(report: Mapping[str, Any]) -> RenderableType:
    held_out = report["held_out"]
    style = {"helped": "bold green", "harmed": "bold red"}.get(wording.change(held_out), "bold yellow")
    parts: list[RenderableType] = [
        Text(wording.headline(held_out), style=style),
        Text(wording.verdict(held_out)),
        Text(),
        _scores(held_out),
    ]
    parts += [Text(line) for line in wording.preferences(held_out)]
    parts += [Text(note, style="dim") for note in (_base_prompt(held_out), *held_out["notes"]) if note]
    for answer in report["answers"][:SHOWN]:
        parts += [Text(), _answer(answer, has_base=not held_out.get("from_nothing"))]
    if report["answers"]:
        shown, all_of = min(SHOWN, len(report["answers"])), len(report["answers"])
        parts.append(Text(f"(the first {shown} of {all_of} by a hash of their source: not picked)", style="dim"))
    parts += [Text(), _ledger(report)] if report["ledger"] else []
    parts += [Text(), Text("Training", style="bold"), _training(report["training"])]
    parts += [*_care(report), *_requirements(report), *_recommendation(report), Text(), _go_on(report)]
    return Group(*parts)


def _scores(held_out: Mapping[str, Any]) -> Table:
    of = "test questions" if held_out.get("answers_only") else f"test records, {held_out['tokens']:,} tokens"
    title = f"{held_out['records']:,} {of}; 95 % intervals in brackets"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="", pad_edge=False)
    table.add_column("")
    for name, style in ((wording.base_name(held_out), ""), ("tuned", "bold"), ("difference", "")):
        table.add_column(name, justify="right", style=style)
    labels = held_out.get("labels") or {}
    for measure in (*wording.measures(held_out), *(wording.LABEL_MEASURES if labels else ())):
        cells = []
        for side in ("base", "tuned", "difference"):
            estimate, signed = (held_out[side] | labels.get(side, {})).get(measure.key), side == "difference"
            value = wording.number(estimate["value"] if estimate else None, measure.decimals, signed=signed)
            bounds = wording.interval(estimate, measure.decimals, signed=signed)
            cells.append(Text(f"{value}\n[{bounds}]" if bounds else value))
        table.add_row(Text(f"{measure.title}\n{measure.better} is better"), *cells)
    return table


def _base_prompt(held_out: Mapping[str, Any]) -> str:
    losses = held_out["base_prompt_losses"]
    if len(losses) < 2:
        return ""
    better = "its default prompt" if held_out["base_prompt"] == "default" else "the data's system message"
    values = f"default {wording.number(losses['default'], 3)}, system {wording.number(losses['system'], 3)}"
    return f"The base is scored under its better prompt, {better} (loss: {values}), on the same reply tokens."


def _answer(answer: Mapping[str, str], *, has_base: bool) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=9)
    grid.add_column(overflow="fold")
    for name, key, style in (
        ("Question", "question", "bold"),
        ("  base", "base", "dim"),
        ("  tuned", "tuned", "green"),
        ("  real", "reference", ""),
    ):
        if key == "base" and not has_base:
            continue
        grid.add_row(Text(name, style=style), Text(_shortened(answer[key]) or "(nothing)", style=style))
    return grid


def _shortened(text: str) -> str:
    """One paragraph of at most :data:`REPLY_CHARACTERS`, marked where it was cut."""
    line = " ".join(printable(text).split())
    return line if len(line) <= REPLY_CHARACTERS else line[:REPLY_CHARACTERS].rstrip() + " ..."


def _ledger(report: Mapping[str, Any]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title="Where the data went", title_justify="left", title_style="bold", pad_edge=False
    )
    table.add_column("stage")
    table.add_column("unit")
    for name in ("in", "kept", "other"):
        table.add_column(name, justify="right")
    table.add_column("by which rule", overflow="fold")
    for stage, rows in ledger_tables(report).items():
        for at, row in enumerate(rows):
            totals = row["totals"]
            other = totals["in"] - totals["kept"]
            name = STAGES.get(stage, stage) if at == 0 else ""
            cells = (name, row["unit"] + "s", *(f"{n:,}" for n in (totals["in"], totals["kept"], other)), row["rules"])
            table.add_row(*map(Text, cells))
    return table


def _training(training: Mapping[str, Any]) -> Text:
    return Text(" · ".join(f"{name.lower()} {value}" for name, value in training_facts(training)))


def _care(report: Mapping[str, Any]) -> list[RenderableType]:
    """A line for every warning, with what to do about it; nothing for a report in which nothing was looked at."""
    found = care_page.lines(report.get("care"))
    if not found:
        return []
    styles = {"danger": "bold red", "warning": "yellow", "good": "green", "note": "dim"}
    parts: list[RenderableType] = [Text(), Text("Is it safe to show?", style="bold")]
    for level, text, advice in found:
        parts.append(Text(printable(text), style=styles[level]))
        parts += [Text(printable(f"  What to do: {advice.rstrip('.')}."), style="dim")] if advice else []
    return parts


def _requirements(report: Mapping[str, Any]) -> list[RenderableType]:
    """Which of them were not met; one line where all were; nothing where nothing is required."""
    found = report.get("gates") or {}
    if found.get("passed") is None:
        return []
    if found["passed"]:
        many = len(found["checks"])
        return [Text(), Text(f"Requirements: {'all ' if many > 1 else ''}{many} met", style="green")]
    lines = [Text(printable(f"  {each['require']}: {each['why']}")) for each in gates.failed(report)]
    return [Text(), Text("Requirements not met: it is not promoted", style="bold red"), *lines]


def _recommendation(report: Mapping[str, Any]) -> list[RenderableType]:
    found = report.get("recommendation")
    if not found:
        return []
    return [
        Text(), Text("What to do", style="bold"), Text(printable(found["text"])),
        Text(printable(f"Why: {found['why']}."), style="dim"),
        Text(_broken(printable(f"$ {found['command']}")), style="bold", overflow="fold"),
    ]  # fmt: skip


def _broken(command: str) -> str:
    """A long command over several lines that a shell takes as one; broken before options only.

    >>> print(_broken("ownchat train inbox --name " + "x" * 50 + " --epochs 2"))
    ownchat train inbox \\
        --name xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx --epochs 2
    """
    first, *options = command.split(" --")
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) + 5 <= WIDTH - 4:
            lines[-1] += f" --{option}"
        else:
            lines.append(f"    --{option}")
    return " \\\n".join(lines)


def _go_on(report: Mapping[str, Any]) -> Table:
    page = Path(report["run"] if "run" in report else Path(report["model"]).parents[1]) / REPORT / HTML
    from_nothing = report["held_out"].get(
        "from_nothing"
    )  # of documents alone it goes on with a text, and does not answer
    talk = ("Talk to it", f"ownchat chat {report['name']}")
    beside = ("Beside the base", f"ownchat chat {report['name']} --compare")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold", no_wrap=True)
    grid.add_column(overflow="fold")
    for what, where in (
        ("Model", report["model"]),
        ("Report", str(page)),
        *([talk] if not from_nothing or "sft" in report["training"].get("phases", {}) else []),
        *([] if from_nothing or "hosted" in report else [beside]),
        ("All runs", "ownchat runs"),
    ):
        grid.add_row(Text(what), Text(where, style="bold"))
    return grid
