"""``report.json`` and ``report.html``: what went in, what came out, and how sure one may be of it.

``report.json`` is a public contract: ``held_out.{base,tuned}.{loss,perplexity,bits_per_byte,chrf}``, each
``{value, low, high}`` or null; ``training.{tokens_per_second, seconds, peak_memory_bytes}``; ``ledger``. The page is
made from it alone, with the run's metrics and settings: one file without requests to anywhere.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ownchat
from ownchat.artifacts import MANIFEST, read_json, write_atomic, write_json
from ownchat.config import Config, to_yaml
from ownchat.data import ledger
from ownchat.errors import printable
from ownchat.evaluate import charts, wording
from ownchat.monitor.events import read_lines

if TYPE_CHECKING:
    from ownchat.evaluate.held_out import Result

JSON, HTML = "report.json", "report.html"
SHOWN = 3  # questions on the page and in the terminal: the first ones, so that nobody picks
PHASES = ("prefer", "sft", "pretrain")  # the last one that ran is the one whose curves count
SAMPLES = "samples.jsonl"  # of the phase pretrain
PACKAGES = ("torch", "transformers", "peft", "sacrebleu", "numpy")
STAGES = {"1-data": "Import", "2-clean": "Clean and split", "3-tokenizer": "Tokenizer", "4-tokens": "Tokens"}

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
        "preferences": None if result.preferences is None else asdict(result.preferences),
        "preferences_only": result.preferences_only,
        "from_nothing": result.from_nothing,
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


def write(report: Mapping[str, Any], output: Path, *, train: Path, config: Config) -> None:
    """Both files; the page also needs the training's metrics and the settings with their origins."""
    write_json(output / JSON, report)
    settings = output.parent / "config.yaml"
    text = settings.read_text(encoding="utf-8") if settings.is_file() else to_yaml(config, {})
    write_atomic(output / HTML, page(report, metrics(train), text))


def page(report: Mapping[str, Any], lines: Sequence[dict[str, Any]], settings: str) -> str:
    """The page. All text of the data is escaped by the template engine and nothing is loaded from outside."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ownchat.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": wording.number, "interval": wording.interval, "clean": printable}
    best = report["training"].get("best_step")
    return environment.get_template("report.html.j2").render(
        report=report,
        held_out=report["held_out"],
        headline=wording.headline(report["held_out"]),
        verdict=wording.verdict(report["held_out"]),
        change=wording.change(report["held_out"]),
        measures=wording.MEASURES,
        preferences=wording.preferences(report["held_out"]),
        limits=wording.limits(report["held_out"]),
        base_name=wording.base_name(report["held_out"]),
        from_nothing=bool(report["held_out"].get("from_nothing")),
        facts=wording.training_facts(report["training"]),
        whiskers=charts.whiskers,
        charts=list(filter(None, [charts.loss_chart(lines, best), charts.difference_chart(lines, best)])),
        pretraining=report.get("pretraining"),
        bits_chart=charts.bits_chart((report.get("pretraining") or {}).get("bits_per_byte", [])),
        shown=report["answers"][:SHOWN],
        stages=[(stage, STAGES.get(stage, stage), table) for stage, table in ledger_tables(report).items()],
        settings=parse_settings(settings),
    )


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


def ledger_tables(report: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """For each stage a row per unit: the totals, and in words what each rule did to those that were not just kept."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for stage, totals in report["ledger"].items():
        rules = report["ledger_rules"].get(stage, {})
        tables[stage] = [
            {"unit": unit, "totals": total, "rules": _what_rules_did(unit, rules)} for unit, total in totals.items()
        ]
    return tables


def _what_rules_did(unit: str, rules: Mapping[str, Mapping[str, int]]) -> str:
    """``dropped: exact duplicate 3; changed: encoding 12``."""
    parts = []
    for key, counts in rules.items():
        of, _, fate = key.partition(" ")
        if of == unit and (fate != "kept" or len(counts) > 1):  # kept by one rule says nothing; by split it does
            parts.append(f"{fate}: " + ", ".join(f"{rule.replace('_', ' ')} {n:,}" for rule, n in counts.items()))
    return "; ".join(parts)


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


def parse_settings(text: str) -> list[dict[str, str]]:
    """Rows ``section.key, value, origin`` of the effective configuration.

    >>> parse_settings("train:\\n  seed: 3  # given (--set)\\n")
    [{'key': 'train.seed', 'value': '3', 'origin': 'given (--set)'}]
    """
    rows, section = [], ""
    for line in text.splitlines():
        if found := re.fullmatch(r"(\w+):", line):
            section = found[1]
        elif found := re.fullmatch(r"  (\w+): (.*?)  # (\w[^#]*)", line):
            rows.append({"key": f"{section}.{found[1]}", "value": found[2], "origin": found[3]})
    return rows
