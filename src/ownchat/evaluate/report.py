"""``report.json`` and ``report.html``: what went in, what came out, and how sure one may be of it.

``report.json`` is a public contract: ``held_out.{base,tuned}.{loss,perplexity,bits_per_byte,chrf}``, each
``{value, low, high}`` or null; ``training.{tokens_per_second, seconds, peak_memory_bytes}``; ``ledger``.
``report.html`` is made from it, see :mod:`ownchat.evaluate.page`.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ownchat
from ownchat.artifacts import (
    CLEAN,
    HOSTED,
    MANIFEST,
    REPORT,
    TRAIN,
    is_hosted,
    read_json,
    write_atomic,
    write_json,
)
from ownchat.config import Config, to_yaml
from ownchat.data import ledger
from ownchat.evaluate import charts, gates
from ownchat.evaluate.cost import cost
from ownchat.evaluate.page import HTML, render_report
from ownchat.evaluate.recommendation import recommend
from ownchat.monitor.events import read_lines

if TYPE_CHECKING:
    from ownchat.evaluate.held_out import Result

JSON = "report.json"
LADDER, LADDER_ANSWERS, LADDER_PROMPT = "ladder.json", "ladder-answers.jsonl", "ladder-prompt.yaml"  # beside it
PHASES = ("prefer", "sft", "pretrain")  # the last one that ran is the one whose curves count
SAMPLES = "samples.jsonl"  # of the phase pretrain
SETTINGS = "config.yaml"  # of the run
PACKAGES = ("torch", "transformers", "peft", "sacrebleu", "numpy")
PRIVATE = "private data"  # the rule under which the ledger has what was masked

Totals = dict[str, dict[str, int]]


def build(result: Result, *, train: Path, run: Path) -> dict[str, Any]:
    """The contents of ``report.json`` from what was measured, the training's manifest and the run's ledgers."""
    stages = {path.parent.name: ledger_totals(path.parent) for path in sorted(run.glob(f"[0-9]-*/{ledger.NAME}"))}
    comparison = asdict(result.comparison)
    held_out = comparison | {
        "base_prompt": result.base_prompt,
        "base_prompt_losses": result.base_prompt_losses,
        "records": result.records,
        "tokens": result.tokens,
        "groups": result.groups,
        "answer_groups": result.answer_groups,
        "preferences": None if result.preferences is None else asdict(result.preferences),
        "labels": None if result.labels is None else asdict(result.labels),
        "judge": None if result.judge is None else asdict(result.judge),
        "embedding": None if result.embedding is None else asdict(result.embedding),
        "slices": [asdict(part) for part in result.slices],
        "extremes": asdict(result.extremes),
        "preferences_only": result.preferences_only,
        "from_nothing": result.from_nothing,
        "answers_only": result.answers_only,
        "answers": len(result.answers),
        "notes": list(result.notes),
    }
    return {
        "name": run.resolve().name,
        "held_out": held_out,
        "training": training(train),
        "pretraining": pretraining(train),
        "ledger": {stage: totals for stage, (totals, _) in stages.items()},
        "ledger_rules": {stage: rules for stage, (_, rules) in stages.items()},
        "answers": [asdict(answer) for answer in result.answers],
        "conditions": conditions(),
        "model": str((train / "model").resolve()),
    }


def write(
    report: Mapping[str, Any], output: Path, *, train: Path, config: Config, seconds: float | None = None
) -> dict[str, Any]:
    """Both files, from what :func:`build` gives; returns the contents of ``report.json`` with what is concluded:
    requirements, cost, private data and the recommendation. ``seconds``: that the evaluation took.

    The page also needs the training's metrics and the settings with their origins.
    """
    run = output.parent
    settings = run / SETTINGS
    contents = dict(report) | {
        "gates": gates.check(gates.parse(config.evaluate.require), report["held_out"], report.get("care")),
        "cost": cost(run, seconds),
        "private_data": private_data(run / CLEAN),
    }
    _write(contents, output, train, settings.read_text(encoding="utf-8") if settings.is_file() else to_yaml(config, {}))
    return contents


def rewrite(run: Path) -> dict[str, Any]:
    """Both files anew from ``report.json``, once ``ladder.json`` lies beside it; returns the contents."""
    contents: dict[str, Any] = read_json(run / REPORT / JSON)
    _write(contents, run / REPORT, trained_in(run), (run / SETTINGS).read_text(encoding="utf-8"))
    return contents


def recheck(run: Path, config: Config) -> dict[str, Any]:
    """The contents of ``report.json`` with these requirements held to what was measured: other ones need no other
    measurement. Both files are made anew where that changes something."""
    contents: dict[str, Any] = read_json(run / REPORT / JSON)
    found = gates.check(gates.parse(config.evaluate.require), contents["held_out"], contents.get("care"))
    if found != contents.get("gates", gates.check([], {})):
        contents["gates"] = found
        _write(contents, run / REPORT, trained_in(run), (run / SETTINGS).read_text(encoding="utf-8"))
    return contents


def trained_in(run: Path) -> Path:
    """Where the manifest and the metrics of a run's training lie."""
    return run / TRAIN / HOSTED if is_hosted(run) else run / TRAIN


def _write(contents: dict[str, Any], output: Path, train: Path, settings: str) -> None:
    lines = metrics(train)
    ladder = read_json(output / LADDER) if (output / LADDER).is_file() else None
    contents["recommendation"] = recommend(contents, lines, run=output.parent, ladder=ladder)
    write_json(output / JSON, contents)
    write_atomic(output / HTML, render_report(contents, lines, settings, ladder))


# -------------------------------------------------------------------------------------------------- what it holds


def ledger_totals(stage: Path) -> tuple[Totals, dict[str, dict[str, int]]]:
    """Totals by unit and what each rule did, as :class:`ownchat.data.ledger.Ledger` had them when it closed."""
    table = ledger.read_ledger(stage).select(["unit", "fate", "rule", "count"])
    totals: Totals = {}
    rules: dict[str, dict[str, int]] = {}
    for row in table.group_by(["unit", "fate", "rule"]).aggregate([("count", "sum")]).sort_by("unit").to_pylist():
        unit, fate, count = row["unit"], row["fate"], row["count_sum"]
        rules.setdefault(f"{unit} {fate}", {})[row["rule"]] = count
        if fate in ledger.FATES:  # events stand beside the fates and are no units of their own
            total = totals.setdefault(unit, dict.fromkeys(("in", *ledger.FATES), 0))
            total["in"] += count
            total[fate] += count
    return totals, {key: dict(sorted(rules[key].items())) for key in sorted(rules)}


def private_data(stage: Path) -> dict[str, Any] | None:
    """``{places, by_type, records}`` of what was masked before anything was learned, from the ledger of ``2-clean``;
    None where nothing was looked for."""
    path = stage / MANIFEST
    if not path.is_file() or not (stage / ledger.NAME).is_file():
        return None
    settings = read_json(path)["config"].get("clean", {})
    if not settings.get("private_types") and not settings.get("private_deny"):
        return None
    import pyarrow.compute as pc

    table = ledger.read_ledger(stage)
    rows = table.filter(pc.and_(pc.equal(table["rule"], PRIVATE), pc.equal(table["fate"], "changed")))
    by_type: Counter[str] = Counter()
    for detail in rows["detail"].to_pylist():  # "email 1, person 2"
        for part in filter(None, (detail or "").split(", ")):
            name, _, count = part.rpartition(" ")
            by_type[name] += int(count)
    places = sum(rows["count"].to_pylist())
    return {"places": places, "by_type": dict(by_type.most_common()), "records": rows.num_rows}


def training(train: Path) -> dict[str, Any]:
    """The figures in the training stage's manifest; the three of the contract are there even when unknown."""
    path = train / MANIFEST
    details = read_json(path)["report"]["details"] if path.is_file() else {}
    return {"tokens_per_second": None, "seconds": None, "peak_memory_bytes": None} | details


def metrics(train: Path) -> list[dict[str, Any]]:
    """The metrics of the last phase that ran."""
    for directory in (*(train / phase for phase in PHASES), train):
        if lines := read_lines(directory / "metrics.jsonl"):
            return lines
    return []


def pretraining(train: Path) -> dict[str, Any] | None:
    """Of a model from nothing: bits per byte of the valid split by step, and sample texts that it wrote at its first
    validation, one in the middle, and the last."""
    directory = train / "pretrain"
    points = charts.series(read_lines(directory / "metrics.jsonl"), "validation_bits_per_byte")
    written = read_lines(directory / SAMPLES)
    if not points and not written:
        return None
    shown = sorted({0, len(written) // 2, len(written) - 1}) if written else []
    return {"bits_per_byte": points, "samples": [written[number] for number in shown]}


def conditions() -> dict[str, Any]:
    """Where and with what the figures were made: a figure without its conditions is not one."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # an unpacked archive without metadata
            versions[package] = None
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
        "ownchat": ownchat.__version__,
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.M)
    return found[1].strip() if found else platform.machine()


def _commit() -> str | None:
    """The commit of ownchat's own sources, with a + where they were changed; None when they are not in git."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", here, *arguments], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # an installed copy may lie in another repository
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", "..") else "")
    except (OSError, subprocess.SubprocessError):
        return None
