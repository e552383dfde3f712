"""What the steps that look at all records at once would do: copies, contamination, contradictions, the three splits.

The stage itself runs on the records, in a folder that is removed again: what is shown is what it does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa

from ownchat.artifacts import SPLITS
from ownchat.clean import stage
from ownchat.clean.contradictions import LOST_RULE, RULE
from ownchat.clean.given import RULE as ELSEWHERE
from ownchat.clean.preview import (
    EXAMPLES,
    Example,
    Mask,
    Pair,
    Segment,
    StepView,
    compare,
    masked,
    place_of,
    row_of,
    segments,
    texts_of,
)
from ownchat.config import CleanConfig, Config
from ownchat.data.ledger import read_ledger
from ownchat.data.records import ShardWriter
from ownchat.errors import DataError

MOST_TURNS = 4  # of two records that are shown beside each other

# Steps that have run already on the records that come here.
_DONE: dict[str, Any] = {
    "repair_encoding": False, "system_lines": False, "bot_noise": False, "boilerplate": False, "cut_turns": False,
    "greetings": False, "detect_language": False, "languages": [], "min_words": 0, "max_words": None,
    "quality_rules": [], "off_topic": "off", "toxicity": "off", "private_types": [], "private_deny": [],
}  # fmt: skip
# In the order of the stage: the name of a step, its switch, the rules that the ledger knows it by.
_STEPS = (
    ("decontaminate", "decontaminate", ("contaminated",)),
    ("exact_duplicates", "exact_duplicates", ("exact duplicate",)),
    ("contradictions", "contradictions", (RULE, LOST_RULE)),
    ("near_duplicates", "near_duplicates", ("near duplicate",)),
)


@dataclass
class StageView:
    """The steps over all records, and the splits that they lead to; ``problem``: why there are none."""

    views: list[StepView]
    splits: dict[str, dict[str, int]] = field(default_factory=dict)  # name -> records, groups
    details: dict[str, Any] = field(default_factory=dict)  # of the stage's report
    problem: str = ""


def preview_stage(batches: Sequence[pa.RecordBatch], config: Config, mask: Mask) -> StageView:
    """Run the steps over all records on ``batches``, which the steps before have cleaned."""
    with tempfile.TemporaryDirectory(prefix="ownchat-") as room:
        with ShardWriter(Path(room) / "data") as writer:
            for batch in batches:
                writer.write(batch)
        only_this = config.model_copy(
            update={
                "clean": config.clean.model_copy(update=_DONE),
                "data": config.data.model_copy(update={"workers": 1, "engine": "local"}),
            }
        )
        views = [StepView(name, switch, _is_on(config.clean, switch)) for name, switch, _ in _STEPS]
        try:
            report = stage.run(only_this, {"data": Path(room) / "data"}, Path(room) / "clean")
        except DataError as error:
            return StageView(views, problem=str(error))
        books = read_ledger(Path(room) / "clean").to_pylist()
    rows = [entry for entry in books if entry["unit"] == "row"]
    left = sum(map(len, batches)) - sum(entry["fate"] == "dropped" and not _is_global(entry) for entry in rows)
    for view, (_, _, rules) in zip(views, _STEPS, strict=True):
        found = [entry for entry in rows if entry["rule"] in rules and entry["fate"] in ("dropped", "changed")]
        dropped = sum(entry["fate"] == "dropped" for entry in found)
        view.records, left = (left, left - dropped), left - dropped
        for entry in found:
            key = f"row {entry['fate']}: {entry['rule']}"
            view.rules[key] = view.rules.get(key, 0) + 1
        if view.name == "contradictions":
            for example in report.details["contradictions"]["examples"][:EXAMPLES]:
                what = example["detail"].partition(":")[0]  # what it says of them is in the texts, masked
                view.pairs.append(_pair(batches, example["ids"], RULE, what, mask))
            continue
        for entry in found[:EXAMPLES]:
            if entry["parent_ids"] and entry["parent_ids"] != [entry["id"]]:
                ids = [entry["parent_ids"][0], entry["id"]]
                view.pairs.append(_pair(batches, ids, entry["rule"], entry["detail"], mask))
            else:
                row = _find(batches, entry["id"])
                texts = [(role, segments(text)) for role, text in masked(texts_of(row), mask)[:MOST_TURNS]]
                view.dropped.append(Example(place_of(row), entry["rule"], entry["detail"], texts))
    sizes = {name: report.details["splits"][name] for name in SPLITS}
    return StageView(views, sizes, report.details)


# ---------------------------------------------------------------------------------------------------------------------


def _is_on(config: CleanConfig, switch: str) -> bool:
    value = getattr(config, switch)
    return bool(value) and value != "off"


def _is_global(entry: dict[str, Any]) -> bool:
    return any(entry["rule"] in rules for _, _, rules in _STEPS) or entry["rule"] in ("leak", ELSEWHERE)


def _find(batches: Sequence[pa.RecordBatch], id: str) -> dict[str, Any]:
    return next(row for batch in batches if (row := row_of(batch, id)) is not None)


def _pair(batches: Sequence[pa.RecordBatch], ids: Sequence[str], rule: str, detail: str, mask: Mask) -> Pair:
    rows = [_find(batches, id) for id in ids]
    first, second = (masked(texts_of(row), mask)[:MOST_TURNS] for row in rows)
    texts = []
    for (role, one), (other_role, other) in zip_longest(first, second, fillvalue=("", "")):
        parts = compare(one, other)
        texts.append((role or other_role, _side(parts, "new"), _side(parts, "cut")))
    return Pair((place_of(rows[0]), place_of(rows[1])), rule, detail, texts)


def _side(parts: list[Segment], other: str) -> list[Segment]:
    """One of two texts: without what only the other one says."""
    return [part for part in parts if part[0] != other]
