"""Three real sets from import to verdict: what a prompt alone can do, and what training adds to the best of them.

    OWNCHAT_DATASETS=... python benchmarks/quality.py [--sets demo,sgd,banking77] [--rows 32] [--minutes 9]

``demo``        a company's 503 questions and answers
``sgd``         service conversations (Schema-Guided Dialogue), 640 of them: 512 to train on
``banking77``   customers' questions with one of 77 labels as the reply, every eighth: about 1,000 to train on

Each set is trained with the default settings (``--minutes``: at most so long) into the run ``quality-SET`` of
``$OWNCHAT_HOME``, then ``ownchat ladder`` scores the same held-out questions for every prompt and for the trained
model. A run that is there is not trained again. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS") or Path(__file__).parents[2] / "shared" / "datasets")
CONVERSATIONS = 640  # of SGD: a tenth each for valid and test leaves 512
EVERY = 8  # row of Banking77
SETS = ("demo", "sgd", "banking77")


def write_source(name: str, folder: Path) -> tuple[Path, list[str]]:
    """The set as a user would hold it, and the settings that it needs. Raises FileNotFoundError without the data."""
    match name:
        case "demo":
            from ownchat.pipeline.demo import SYSTEM, demo_folder

            return demo_folder(), [f"data.system={json.dumps(SYSTEM)}"]
        case "sgd":
            path = folder / "sgd.jsonl"
            with open(path, "w", encoding="utf-8") as handle:
                for dialogue in itertools.islice(dialogues(DATASETS / "sgd" / "train"), CONVERSATIONS):
                    handle.write(json.dumps(dialogue, ensure_ascii=False) + "\n")
            return path, []
        case _:
            path = folder / "banking77.csv"
            with open(DATASETS / "banking77" / "train.csv", encoding="utf-8", newline="") as source:
                rows = list(csv.DictReader(source))[::EVERY]
            with open(path, "w", encoding="utf-8", newline="") as target:
                writer = csv.DictWriter(target, ["text", "category"])
                writer.writeheader()
                writer.writerows(rows)
            return path, ["data.map={question: text, answer: category}"]


def dialogues(folder: Path) -> Iterator[dict[str, Any]]:
    """Two-sided conversations, in the order of the files; tools and annotations are left out."""
    if not (files := sorted(folder.glob("dialogues_*.json.gz"))):
        raise FileNotFoundError(f"there is no {folder}; set OWNCHAT_DATASETS, or choose --sets demo")
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as handle:
            for dialogue in json.load(handle):
                roles = {"USER": "user", "SYSTEM": "assistant"}
                said = [{"role": roles[turn["speaker"]], "content": turn["utterance"]} for turn in dialogue["turns"]]
                yield {"messages": said}


def ownchat(*arguments: str) -> dict[str, Any]:
    """The program; what it prints goes on to the screen, and its last line is read as JSON."""
    command = [sys.executable, "-m", "ownchat", *arguments, "--json"]
    print("$ ownchat", *arguments, flush=True)
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if not line.startswith("{"):
                print(f"    {line}", end="", flush=True)
    figures = bool(lines) and lines[-1].startswith("{")
    gate = arguments[0] == "train" and process.returncode == 1  # not passed, the figures are there
    if not figures or (process.returncode != 0 and not gate):
        raise SystemExit(f"ownchat {arguments[0]} ended with {process.returncode}")
    return json.loads(lines[-1])


def measure(name: str, rows: int, minutes: float | None, budget: int | None) -> dict[str, Any]:
    from ownchat.artifacts import home

    folder = home() / "quality"
    folder.mkdir(exist_ok=True)
    source, sets = write_source(name, folder)
    run = f"quality-{name}"
    options = [part for text in sets for part in ("--set", text)]
    options += [] if minutes is None else ["--minutes", str(minutes)]
    report = ownchat("train", str(source), "--name", run, *options)
    more = [] if budget is None else ["--budget", str(budget)]
    return verdict(name, ownchat("ladder", report["name"], "--rows", str(rows), *more), report)


def verdict(name: str, ladder: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """What the ladder and the page say of a set, in one row."""
    from ownchat.evaluate.wording import headline

    rungs = [rung for rung in ladder["rungs"] if rung["score"] is not None]
    return {
        "set": name, "metric": ladder["metric"], "rows": ladder["rows"], "rungs": rungs,
        "advice": ladder["advice"], "page": headline(report["held_out"]),
        "recommendation": report.get("recommendation"),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    cells = [["set", "metric", "rows", "rung", "score, 95 %", "against the best prompt, 95 %"]]
    for row in rows:
        for rung in row["rungs"]:
            against = rung.get("against_prompt")
            cells.append(
                [row["set"], row["metric"], str(row["rows"]),
                 rung["name"] + (" (best prompt)" if rung["best_prompt"] else ""),
                 f"{rung['score']:.1f} [{rung['low']:.1f}, {rung['high']:.1f}]",
                 "" if not against else f"{against['value']:+.1f} [{against['low']:+.1f}, {against['high']:+.1f}]"]
            )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sets", default=",".join(SETS), help="demo, sgd, banking77")
    parser.add_argument("--rows", type=int, default=32, help="held-out questions of each set that are answered")
    parser.add_argument("--minutes", type=float, help="of training at most, for each set; none: as long as it takes")
    parser.add_argument(
        "--budget", type=int, help="answers that the search for a prompt may ask for; none: as the ladder has it"
    )
    given = parser.parse_args()
    names = [name for name in given.sets.split(",") if name]
    if unknown := set(names) - set(SETS):
        parser.error(f"no such set: {', '.join(sorted(unknown))}")
    rows = []
    for name in names:
        rows.append(measure(name, given.rows, given.minutes, given.budget))
    print(f"\n{table(rows)}\n")
    for row in rows:
        print(f"{row['set']}: {row['advice']}\n    {row['page']}")
    print(json.dumps({"benchmark": "quality", "sets": rows}))


if __name__ == "__main__":
    main()
