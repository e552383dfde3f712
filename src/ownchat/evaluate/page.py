"""``report.html``: the page is made from ``report.json`` alone, with the run's metrics, its settings and its ladder.

One file without requests to anywhere. All text of the data is escaped by the template engine. What a report does not
have (older ones, other kinds of data) leaves its section out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ownchat.errors import printable
from ownchat.evaluate import care_page, cells, charts, sections, wording
from ownchat.evaluate.training_facts import duration, training_facts

HTML = "report.html"
PRIVATE = ("clean.private_deny", "clean.private_allow")  # names that are in no text: pages are handed on
SHOWN = 3  # questions on the page and in the terminal: the first ones, so that nobody picks
STAGES = {
    "1-data": "Import", "1-questions": "Questions about documents", "2-clean": "Clean and split",
    "3-tokenizer": "Tokenizer", "3-replay": "General rows", "4-tokens": "Tokens", "4-model": "New model",
    "5-train": "Training", "6-report": "Evaluation",
}  # fmt: skip


def render_report(
    report: Mapping[str, Any],
    lines: Sequence[dict[str, Any]],
    settings: str,
    ladder: Mapping[str, Any] | None = None,
) -> str:
    """The page of a report. ``lines``: the metrics of the training's last phase; ``settings``: ``config.yaml``;
    ``ladder``: ``ladder.json``."""
    best, held_out = report["training"].get("best_step"), report["held_out"]
    labels = sections.labels(held_out)
    return render(
        "report.html.j2",
        report=report,
        held_out=held_out,
        headline=wording.headline(held_out),
        verdict=wording.verdict(held_out),
        change=wording.change(held_out),
        measures=wording.measures(held_out),
        preferences=wording.preferences(held_out),
        limits=wording.limits(held_out),
        base_name=wording.base_name(held_out),
        from_nothing=bool(held_out.get("from_nothing")),
        facts=training_facts(report["training"]),
        whiskers=cells.whiskers,
        charts=list(filter(None, [charts.loss_chart(lines, best), charts.difference_chart(lines, best)])),
        pretraining=report.get("pretraining"),
        bits_chart=charts.bits_chart((report.get("pretraining") or {}).get("bits_per_byte", [])),
        shown=report["answers"][:SHOWN],
        extremes=held_out.get("extremes") or {},
        labels=labels,
        judge=sections.judge(held_out),
        embedding=held_out.get("embedding"),
        slices=sections.slices(held_out),
        ladder=sections.ladder(ladder),
        gates=report.get("gates") or {"passed": None, "checks": []},
        cost=sections.cost(report.get("cost"), STAGES),
        care=care_page.section(report.get("care")),
        private_data=sections.private_data(report.get("private_data")),
        recommendation=report.get("recommendation"),
        stages=[(stage, STAGES.get(stage, stage), table) for stage, table in ledger_tables(report).items()],
        settings=[row | {"value": _public(row)} for row in parse_settings(settings)],
    )


def render(template: str, **values: Any) -> str:
    """A page of this folder's templates; numbers and intervals are written as everywhere."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ownchat.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": wording.number, "interval": wording.interval, "clean": printable, "duration": duration,
    }  # fmt: skip
    return environment.get_template(template).render(**values)


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


def public_setting(key: str, value: Any) -> str:
    """A setting as a page may say it: of lists of private names only how many there are, and no name in a path.

    >>> public_setting("clean.private_deny", ["Ann", "Ben"]), public_setting("model.base", f"{Path.home()}/base")
    ('2 entries', '~/base')
    """
    if key in PRIVATE:
        return f"{len(value)} entr{'y' if len(value) == 1 else 'ies'}" if value else "none"
    if value is None:
        return "none"
    return re.sub(rf"(?<![\w.~-]){re.escape(str(Path.home()))}(?![\w.-])", "~", str(value))


def _public(row: Mapping[str, str]) -> str:
    value = row["value"]
    return public_setting(row["key"], yaml.safe_load(value) if row["key"] in PRIVATE else value)
