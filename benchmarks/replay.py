"""What replay buys: the same data trained with and without general rows mixed in, scored on both.

    python benchmarks/replay.py [FOLDER] [--shares 0,0.1,0.3] [--path FILE] [--set KEY=VALUE ...]

``FOLDER``: trained on; none: the demo's questions and answers. ``--shares``: of the trained tokens, one run each
(``replay-SHARE`` of ``$OWNCHAT_HOME``); 0: without. ``--path``: general rows; none: the base's own answers. A run that
is there is not trained again. For each share: the held-out loss on the user's own data and its paired difference to the
first share, and what ``evaluate.care`` finds of forgetting: the rise of the loss on general text, easy questions and
instructions, each with its 95 % interval. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quality import ownchat

FIGURES = ("general_loss", "loss", "accuracy", "instructions")


def train(source: Path, share: float, path: str | None, sets: list[str]) -> dict[str, Any]:
    """One run; returns its report."""
    replay = {"share": share} | ({} if path is None else {"path": path})
    settings = [f"train.replay={json.dumps(replay if share else {})}", "evaluate.care={checks: [forgetting]}", *sets]
    options = [part for text in settings for part in ("--set", text)]
    return ownchat("train", str(source), "--name", f"replay-{share:g}", *options)


def row(share: float, report: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """The figures of one run; ``first``: the report that it is compared with."""
    from ownchat.artifacts import REPORT, run_directory
    from ownchat.evaluate.paired import load, paired

    (check,) = (each for each in report["care"]["checks"] if each["name"] == "forgetting")
    found = {figure["name"]: figure for figure in check["figures"]}
    own, other = (load(run_directory(one["name"]) / REPORT) for one in (report, first))
    against = None if own is None or other is None else paired(other, own)
    return {
        "share": share,
        "replay": report["training"].get("replay"),
        "seconds": report["training"]["seconds"],
        "held_out_loss": report["held_out"]["tuned"]["loss"],
        "held_out_base": report["held_out"]["base"]["loss"],
        "against_first": None if against is None else asdict(against.difference),
        "forgetting": {name: found[name] for name in FIGURES if name in found},
    }


def table(rows: list[dict[str, Any]]) -> str:
    cells = [["share", "held-out loss", "to the first", "general loss rises by", "easy questions", "instructions", "s"]]
    for each in rows:
        found = each["forgetting"]
        cells.append(
            [f"{each['share']:g}", _shown(each["held_out_loss"], 3), _shown(each["against_first"], 3),
             _shown(found["loss"]["difference"], 1, " %"), _shown(found["accuracy"]["difference"], 1),
             _shown(found["instructions"]["difference"], 1), f"{each['seconds']:.0f}"]
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _shown(figure: dict[str, float] | None, decimals: int, unit: str = "") -> str:
    if figure is None:
        return "-"
    value, low, high = (f"{figure[name]:.{decimals}f}" for name in ("value", "low", "high"))
    return f"{value}{unit} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description="what train.replay buys")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--shares", default="0,0.1,0.3")
    parser.add_argument("--path")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    given = parser.parse_args()
    source, sets = given.folder, given.sets
    if source is None:
        from ownchat.pipeline.demo import SYSTEM, demo_folder

        source, sets = demo_folder(), [f"data.system={json.dumps(SYSTEM)}", *sets]
    shares = [float(share) for share in given.shares.split(",")]
    reports = [train(source, share, given.path, sets) for share in shares]
    rows = [row(share, report, reports[0]) for share, report in zip(shares, reports, strict=True)]
    print(table(rows))
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
