"""Time from the manifests, energy from counters where there are some, else an estimate that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ownchat.evaluate import cost


def stage(run: Path, name: str, seconds: float, **details) -> None:
    (run / name).mkdir(parents=True, exist_ok=True)
    manifest = {"key": "k", "report": {"seconds": seconds, "details": details}}
    (run / name / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    stage(tmp_path, "1-data", 3.04)
    stage(tmp_path, "5-train", 3600.0, device="cpu", threads=2, processes=1, peak_memory_bytes=2_000_000_000)
    return tmp_path


def test_estimate_is_called_one(run):
    found = cost.cost(run, 596.96)
    assert found["by_stage"] == {"1-data": 3.0, "5-train": 3600.0, "6-report": 597.0} and found["seconds"] == 4200.0
    assert found["watt_hours"] == pytest.approx((2 * 3.5 + 2 * 0.392) * 4200 / 3600, abs=0.01)
    assert found["how"].startswith("estimated, not measured: 2 busy")


def test_a_graphics_card_has_no_figure(run):
    stage(run, "5-train", 60.0, device="cuda", threads=8)
    (run / cost.NAME).write_text('{"joules": 7200.0, "seconds": 60.0}')  # of the processor beside it
    found = cost.cost(run)
    assert found["watt_hours"] is None and "graphics card" in found["how"]


def test_stages_that_not_every_run_has_count_in_order(run):
    stage(run, "1-questions", 900.0)
    stage(run, "2-clean", 1.0)
    found = cost.cost(run)
    assert list(found["by_stage"].items())[:3] == [("1-data", 3.0), ("1-questions", 900.0), ("2-clean", 1.0)]
    assert found["seconds"] == 3.0 + 900.0 + 1.0 + 3600.0


def zone(root: Path, name: str, kind: str, micro_joules: int) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(kind + "\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")
    (folder / "energy_uj").write_text(f"{micro_joules}\n")
    return folder


def test_counters_are_added_up_over_packages_and_over_a_turn(tmp_path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 999_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 5_000_000)
    part = zone(tmp_path, "intel-rapl:0:0", "core", 1_000_000)
    whole = zone(tmp_path, "intel-rapl:2", "psys", 1_000_000)
    meter = cost.Meter(tmp_path)
    assert meter.zones == [first, second]
    for folder in (part, whole):
        (folder / "energy_uj").write_text("900000000")
    (first / "energy_uj").write_text("2000000")  # turned over at 1000 J
    (second / "energy_uj").write_text("9500000")
    assert meter.read() == pytest.approx(3.0 + 4.5)
    assert meter.read() == pytest.approx(7.5)


def test_what_was_measured_counts_and_adds_up_over_starts(run, tmp_path):
    counter = zone(tmp_path / "powercap", "intel-rapl:0", "package-0", 0) / "energy_uj"
    for joules in (800, 400):  # the second time the counter, of 1000 J, turns over
        with cost.metered(run, tmp_path / "powercap"):
            counter.write_text(str(joules * 1_000_000))
    found = json.loads((run / cost.NAME).read_text())
    assert found["joules"] == pytest.approx(800 + (1000 - 800 + 400), abs=0.1)
    assert cost.cost(run)["watt_hours"] == pytest.approx(found["joules"] / 3600, abs=0.01)
    assert cost.cost(run)["how"].startswith("measured")


def test_without_counters_nothing_is_written(run, tmp_path):
    with cost.metered(run, tmp_path / "nowhere"):
        pass
    assert not (run / cost.NAME).exists()
