"""What the replay benchmark makes of reports: its rows and its table."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from ownchat.artifacts import REPORT, run_directory
from ownchat.evaluate.paired import RecordScores


def figure(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "difference": {"value": value, "low": value - 1, "high": value + 1}}


def report(name: str, loss: float, rise: float, replay: dict[str, Any] | None) -> dict[str, Any]:
    RecordScores(["x", "y"], [0, 1], [10, 10], [40, 40], [10 * loss, 10 * loss]).save(run_directory(name) / REPORT)
    side = {"loss": {"value": loss, "low": loss - 0.1, "high": loss + 0.1}}
    found = [figure("general_loss", 0.3), figure("loss", rise), figure("accuracy", -4.0), figure("instructions", -7.0)]
    return {
        "name": name, "training": {"seconds": 61.2, "replay": replay}, "held_out": {"tuned": side, "base": side},
        "care": {"checks": [{"name": "bias", "figures": []}, {"name": "forgetting", "figures": found}]},
    }  # fmt: skip


def test_rows_and_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    monkeypatch.delitem(sys.modules, "replay", raising=False)
    benchmark = importlib.import_module("replay")
    without = report("replay-0", 2.0, 9.0, None)
    mixed = report("replay-0.1", 2.05, 4.0, {"share": 0.1})
    rows = [benchmark.row(0, without, without), benchmark.row(0.1, mixed, without)]
    assert rows[1]["against_first"]["value"] == pytest.approx(0.05) and rows[1]["replay"] == {"share": 0.1}
    head, first, second = benchmark.table(rows).splitlines()
    assert "general loss rises by" in head
    assert "9.0 % [8.0, 10.0]" in first and "0.000 [0.000, 0.000]" in first
    assert "4.0 % [3.0, 5.0]" in second and "0.050 [0.050, 0.050]" in second and second.endswith("61")
    monkeypatch.delitem(sys.modules, "replay")
