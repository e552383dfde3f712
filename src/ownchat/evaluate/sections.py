"""What stands in the sections of a report's page, as rows and sentences, from parts of ``report.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownchat.evaluate import cells
from ownchat.evaluate.gates import judge_prefers
from ownchat.evaluate.slices import FEW_GROUPS
from ownchat.evaluate.training_facts import duration
from ownchat.evaluate.wording import interval, number

LARGEST_TABLE = 40  # labels: a table of more is in report.json only

BY = {"source": "by source", "topic": "by topic", "length": "by length of the reply"}


def labels(held_out: Mapping[str, Any]) -> dict[str, Any] | None:
    """The rows of the two figures, and the confusion table of each model."""
    found = held_out.get("labels")
    if not found:
        return None
    rows = [
        {"title": title} | {side: found[side][key] for side in ("base", "tuned", "difference")}
        for key, title in (("accuracy", "Accuracy"), ("macro_f1", "Macro-F1"))
    ]
    columns = [*found["names"], "other"]
    tables = [
        {"side": side, "rows": [{"name": name, "counts": row} for name, row in zip(found["names"], table, strict=True)]}
        for side in ("tuned", "base")
        if (table := found[side].get("confusion")) and len(found["names"]) <= LARGEST_TABLE
    ]
    return {"rows": rows, "columns": columns, "tables": tables, "mistakes": _mistakes(found)}


def _mistakes(found: Mapping[str, Any], most: int = 10) -> list[dict[str, Any]]:
    """What the tuned model takes for what, the most frequent first."""
    names, table = found["names"], found["tuned"].get("confusion") or []
    wrong = [
        {"count": count, "reference": names[at], "answer": [*names, "other"][to]}
        for at, row in enumerate(table)
        for to, count in enumerate(row)
        if count and to != at
    ]
    return sorted(wrong, key=lambda each: -each["count"])[:most]


def judge(held_out: Mapping[str, Any]) -> dict[str, Any] | None:
    """A sentence on who was preferred, a drawing of the shares, and how far the judge is to be trusted."""
    found = held_out.get("judge")
    if not found:
        return None
    if not found["judged"] or found["tuned"] is None or found["base"] is None:
        return {"model": found["model"], "verdict": "No pair of answers was judged", "rows": [], "svg": "",
                "trust": _failed(found)}  # fmt: skip
    tuned, base = found["tuned"], found["base"]
    if judge_prefers(tuned, base):
        verdict = "The judge prefers the tuned model"
    elif judge_prefers(base, tuned):
        verdict = "The judge prefers the base"
    else:
        verdict = "The judge sees no clear difference"
    parts = [(name, (found[key] or {"value": 0.0})["value"]) for name, key in
             (("tuned", "tuned"), ("tie", "ties"), ("base", "base"))]  # fmt: skip
    agreement = found["self_agreement"]
    trust = [
        "Every pair was judged twice, the second time in the other order, so that the first place counts for nothing.",
        "" if agreement is None else f"Both times it said the same in {_share(agreement)} of the pairs"
        + (": it is hardly a judge." if agreement["value"] < 0.6 else "."),
        _failed(found),
    ]  # fmt: skip
    return {
        "model": found["model"],
        "verdict": f"{verdict} ({found['judged']:,} pairs)",
        "rows": [(title, _share(found[key])) for title, key in
                 (("Tuned is better", "tuned"), ("Equal", "ties"), ("Base is better", "base")) if found[key]],
        "svg": cells.shares(parts),
        "trust": " ".join(filter(None, trust)),
    }  # fmt: skip


def _failed(found: Mapping[str, Any]) -> str:
    if not found["failed"]:
        return ""
    return f"{found['failed']:,} of {found['pairs']:,} pairs got no verdict and count for nothing."


def _share(estimate: Mapping[str, float]) -> str:
    percent = {bound: 100 * value for bound, value in estimate.items()}
    return f"{number(percent['value'], 0)} % ({interval(percent, 0)} %)"


def slices(held_out: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table for each sort of slice, its rows from the least gain to the greatest, all drawn on one scale."""
    found = [each for each in held_out.get("slices") or [] if each["improvement"] is not None]
    scale = cells.scale_of([each["improvement"] for each in found], 0.0)
    tables = []
    for by, title in BY.items():
        rows = [each for each in found if each["by"] == by]
        if by != "length":
            rows.sort(key=lambda each: each["improvement"]["value"])
        if rows:
            drawn = [
                {**each, "name": each["name"] or "none", "few": each["groups"] < FEW_GROUPS,
                 "svg": cells.forest(each["improvement"], scale)}
                for each in rows
            ]  # fmt: skip
            tables.append({"title": title, "rows": drawn})
    return tables


def ladder(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The rungs in the order of the ladder with bars on one scale; those without a score say why."""
    if not found or not found.get("rungs"):
        return None
    scored = [
        {"value": rung["score"], "low": rung["low"], "high": rung["high"]} if rung.get("score") is not None else None
        for rung in found["rungs"]
    ]
    scale = cells.scale_of([each for each in scored if each], 0.0, width=180)
    rows = [
        {
            "name": rung["name"],
            "estimate": estimate,
            "difference": rung.get("difference"),
            "against_prompt": rung.get("against_prompt"),
            "is_best_prompt": bool(rung.get("best_prompt")),
            "seconds": rung.get("seconds_per_answer"),
            "cost": rung.get("cost"),
            "failed": rung.get("failed") or 0,
            "note": rung.get("note") or rung.get("why") or "",
            "svg": cells.bar(estimate, scale),
        }
        for rung, estimate in zip(found["rungs"], scored, strict=True)
    ]
    return {"metric": METRICS.get(found["metric"], found["metric"]), "rows": rows, "records": found["rows"],
            "advice": found.get("advice") or "", "notes": found.get("notes") or []}  # fmt: skip


METRICS = {"chrf": "chrF", "rouge_l": "ROUGE-L", "exact": "exact match", "accuracy": "accuracy"}


def cost(found: Mapping[str, Any] | None, titles: Mapping[str, str]) -> dict[str, Any] | None:
    """Rows of the stages, the longest as wide as its cell; the energy in a unit that fits."""
    if not found or not found.get("by_stage"):
        return None
    longest = max(found["by_stage"].values()) or 1.0
    scale = cells.Scale(0.0, longest, 220)
    rows = [
        {
            "title": titles.get(stage, stage),
            "seconds": duration(seconds),
            "share": number(100 * seconds / (found["seconds"] or 1.0), 0) + " %",
            "svg": cells.bar({"value": seconds, "low": seconds, "high": seconds}, scale, "base"),
        }
        for stage, seconds in found["by_stage"].items()
    ]
    used = energy(found["watt_hours"])
    return {"rows": rows, "seconds": duration(found["seconds"]), "energy": used, "how": found["how"]}


def energy(watt_hours: float | None) -> str | None:
    """For people.

    >>> energy(0.42), energy(18.4), energy(2300), energy(None)
    ('0.4 Wh', '18 Wh', '2.3 kWh', None)
    """
    if watt_hours is None:
        return None
    if watt_hours >= 1000:
        return f"{watt_hours / 1000:,.1f} kWh"
    return f"{watt_hours:.0f} Wh" if watt_hours >= 10 else f"{watt_hours:.1f} Wh"


def private_data(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What was masked, by type, the most frequent first."""
    if found is None:
        return None
    by_type = sorted(found["by_type"].items(), key=lambda pair: (-pair[1], pair[0]))
    return {"places": found["places"], "records": found["records"],
            "rows": [(name.replace("_", " "), count) for name, count in by_type]}  # fmt: skip
