"""Canaries in the input: how much of a planted secret is learned, with and without duplicates taken out.

    python benchmarks/care.py [FOLDER] [--canaries 20] [--repeats 1,4,16] [--set KEY=VALUE ...]

``FOLDER``: what is trained on; none: the demo's questions and answers. A copy of it gets a file of secrets, each
as often as ``--repeats`` says in turn, and is trained at default settings twice: ``care-removed`` with exact and near
duplicates taken out, ``care-kept`` with neither (runs of ``$OWNCHAT_HOME``; one that is there stays as it is). For
each number of planted copies: how many of them cleaning left in the train split, the exposure in bits (base and tuned,
with 95 % intervals over canaries), and how many secrets the model gives away. Canaries of which no copy came into the
train split (the split drew them for valid or test) stand in a row of their own: they were never seen. Prints a table
and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from quality import ownchat

VARIANTS = {"removed": True, "kept": False}
DRAWS = 1000


def planted_copy(source: Path, target: Path, planted: list[Any]) -> None:
    """The data with ``canaries.csv`` beside it, a row for each copy, spread evenly."""
    shutil.rmtree(target, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        target.mkdir(parents=True)
        shutil.copy(source, target)
    rows = [(canary.question, canary.text()) for canary in planted for _ in range(canary.repeats)]
    order = np.random.default_rng(0).permutation(len(rows))
    with open(target / "canaries.csv", "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([("question", "answer"), *(rows[at] for at in order)])


def train(source: Path, name: str, remove: bool, sets: list[str]) -> dict[str, Any]:
    """One run; returns its report."""
    settings = [f"clean.exact_duplicates={str(remove).lower()}", f"clean.near_duplicates={str(remove).lower()}",
                "evaluate.care={checks: [memorisation]}", *sets]  # fmt: skip
    options = [part for text in settings for part in ("--set", text)]
    return ownchat("train", str(source), "--name", name, *options)


def left_over(run: Path, planted: list[Any]) -> np.ndarray:
    """int64 [canaries]: copies of each in the train split."""
    from ownchat.artifacts import CLEAN
    from ownchat.data.records import read_records

    asked: Counter[str] = Counter()
    for record in read_records(run / CLEAN / "train"):
        asked.update(turn["content"] for turn in record["messages"] or () if turn["role"] == "user")
    return np.array([asked[canary.question] for canary in planted])


def measured(name: str, planted: list[Any]) -> list[dict[str, Any]]:
    """A row for each number of planted copies, and one for canaries that training never saw."""
    from ownchat.artifacts import TRAIN, read_json, run_directory
    from ownchat.config import load_config
    from ownchat.evaluate import exposure
    from ownchat.evaluate.care import Subject

    run = run_directory(name)
    config, _ = load_config(run / "config.yaml")
    model = run / TRAIN / "model"
    base = Path(read_json(model / "ownchat.json")["base"])
    with Subject(config=config, base=base, tuned=model, run=run) as subject:
        found = {side: exposure.measured(subject, side, planted, "conversation") for side in ("tuned", "base")}
    copies = left_over(run, planted)
    repeats = np.array([canary.repeats for canary in planted])
    parts = [(f"{times} x", (repeats == times) & (copies > 0)) for times in sorted(set(repeats.tolist()))]
    rows = []
    for title, mine in [*parts, ("never seen", copies == 0)]:
        if not mine.any():
            continue
        bits = {side: exposure.mean(of[0][mine], draws=DRAWS) for side, of in found.items()}
        drawn = exposure.share(found["tuned"][1][mine])
        rows.append(
            {"planted": title, "canaries": int(mine.sum()), "copies": float(copies[mine].mean()),
             "base": None if bits["base"] is None else asdict(bits["base"]),
             "tuned": None if bits["tuned"] is None else asdict(bits["tuned"]),
             "given_away": None if drawn is None else asdict(drawn)}
        )  # fmt: skip
    return rows


def main() -> None:
    from ownchat.artifacts import home
    from ownchat.evaluate.report import conditions
    from ownchat.pipeline.demo import SYSTEM, demo_folder
    from ownchat.tokenizer.canaries import Planting, canaries

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--canaries", type=int, default=20)
    parser.add_argument("--repeats", default="1,4,16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    sets = list(given.set)
    if given.folder is None:
        sets.append(f"data.system={json.dumps(SYSTEM)}")
    planted = canaries(Planting(given.canaries, tuple(map(int, given.repeats.split(",")))), given.seed)
    source = home() / "benchmarks" / "care"
    planted_copy(given.folder or demo_folder(), source, planted)
    results: dict[str, Any] = {}
    print(f"{'duplicates':>11} {'planted':>11} {'canaries':>9} {'copies':>7} {'base bits':>20} {'tuned bits':>20} "
          f"{'given away':>20}")  # fmt: skip
    for variant, remove in VARIANTS.items():
        report = train(source, f"care-{variant}", remove, sets)
        rows = measured(report["name"], planted)
        results[variant] = {"rows": rows, "held_out_loss": report["held_out"]["tuned"]["loss"],
                            "epochs": report["training"].get("epochs")}  # fmt: skip
        for row in rows:
            print(f"{variant:>11} {row['planted']:>11} {row['canaries']:>9} {row['copies']:>7.1f} "
                  f"{_cell(row['base'], 1):>20} {_cell(row['tuned'], 1):>20} {_cell(row['given_away'], 0, ' %'):>20}",
                  flush=True)  # fmt: skip
    print(json.dumps({"benchmark": "care", "canaries": given.canaries, "seed": given.seed, "results": results,
                      "conditions": conditions()}))  # fmt: skip


def _cell(found: dict[str, float] | None, decimals: int, unit: str = "") -> str:
    if found is None:
        return "-"
    low, high = (f"{found[bound]:.{decimals}f}" for bound in ("low", "high"))
    return f"{found['value']:.{decimals}f}{unit} ({low} to {high})"


if __name__ == "__main__":
    main()
