"""The ladder as a person reads it in the terminal, made from ``ladder.json`` alone."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ownchat.errors import printable
from ownchat.evaluate.wording import interval, number

TITLES = {"chrf": "chrF", "accuracy": "accuracy", "rouge_l": "ROUGE-L", "exact": "exact match"}
WIDTH = 80


def table(found: Mapping[str, Any], *, width: int = WIDTH, color: bool = False) -> str:
    """The rungs, what was passed over, and what to do; no line longer than ``width`` but for commands."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=color, color_system="standard" if color else None, highlight=False,
        emoji=False, markup=False, legacy_windows=False,
    )  # fmt: skip
    console.print(_rungs(found))
    for rung in found["rungs"]:
        if rung["note"] and (rung["score"] is None or rung["failed"]):
            console.print(Text(f"{printable(rung['name'])}: {printable(rung['note'])}", style="yellow"))
    if any(rung["best_prompt"] for rung in found["rungs"]):
        console.print(Text("* the best prompt on rows of the train split", style="dim"))
    for note in found["notes"]:
        console.print(Text(printable(note), style="dim"))
    console.print(Text(f"\nWhat to do: {printable(found['advice'])}.", style="bold"))
    if found["command"]:
        console.print(Text(f"$ {found['command']}"), soft_wrap=True)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _rungs(found: Mapping[str, Any]) -> Table:
    metric = TITLES[found["metric"]]
    title = f"{found['rows']:,} held-out questions; {metric}, 0 to 100, higher is better; 95 % intervals"
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="", pad_edge=False,
                 collapse_padding=True)  # fmt: skip
    priced = any(rung["cost"] is not None for rung in found["rungs"])
    made.add_column("", overflow="fold")
    for name in (metric, "to the\nplain prompt", "to the\nbest prompt*", "seconds"):
        made.add_column(name, justify="right", no_wrap=True)
    if priced:
        made.add_column("cost of\n1,000", justify="right", no_wrap=True)
    for rung in found["rungs"]:
        have = None if rung["score"] is None else {"value": rung["score"], "low": rung["low"], "high": rung["high"]}
        against = None if rung["best_prompt"] else rung["against_prompt"]
        cells = [
            Text(printable(rung["name"]) + (" *" if rung["best_prompt"] else "")),
            _cell(have), _cell(rung["difference"], signed=True), _cell(against, signed=True),
            Text(number(rung["seconds_per_answer"], 2)),
        ]  # fmt: skip
        if priced:
            cells.append(Text(number(rung["cost"], 3)))
        made.add_row(*cells)
    return made


def _cell(estimate: Mapping[str, float] | None, *, signed: bool = False) -> Text:
    value = number(None if estimate is None else estimate["value"], 1, signed=signed)
    bounds = interval(estimate, 1, signed=signed)
    return Text(f"{value}\n{bounds}" if bounds else value)
