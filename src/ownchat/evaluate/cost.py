"""What a run took: time by stage, and energy as far as it can be known."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ownchat.artifacts import MANIFEST, REPORT, TRAIN, is_hosted, read_json, write_json

NAME = "energy.json"  # in the run: what was measured while it was worked on
POWERCAP = Path("/sys/class/powercap")
SECONDS_APART = 10.0  # of two readings: a package's counter turns over after minutes under full load

# Averages of server processors by the methodology of Cloud Carbon Footprint (cloudcarbonfootprint.org, its constants
# for AWS): a busy hardware thread, and a gigabyte of memory. Without cooling and the rest of the machine.
WATTS_PER_THREAD = 3.5
WATTS_PER_GIGABYTE = 0.392
ESTIMATED = (
    "estimated, not measured: {threads} at {watts} W each and {memory:.1f} GB of memory at "
    "{gigabyte} W per GB, averages of server processors (Cloud Carbon Footprint). A desktop may take several times that"
)
MEASURED = (
    "measured by the counters of the processor packages (RAPL) over {seconds:,.0f} s: all that ran on this machine, "
    "without memory, disks and power supply"
)
ON_A_CARD = "not known: it ran on a graphics card, whose energy is not measured"


def cost(run: Path, evaluation_seconds: float | None = None) -> dict[str, Any]:
    """``{seconds, by_stage, watt_hours, how}`` of a run from the manifests of its stages; ``by_stage`` in seconds.

    ``evaluation_seconds``: of the evaluation that has no manifest yet. A stage that was not run again counts with the
    time that it took when it was.
    """
    by_stage: dict[str, float] = {}
    trained: dict[str, Any] = {}
    for path in sorted(run.glob(f"[0-9]-*/{MANIFEST}")):  # also of stages that not every run has
        stage, manifest = path.parent.name, read_json(path)["report"]
        by_stage[stage] = round(manifest["seconds"], 1)
        trained = manifest["details"] if stage == TRAIN else trained
    if evaluation_seconds is not None:
        by_stage[REPORT] = round(evaluation_seconds, 1)
    seconds = round(sum(by_stage.values()), 1)
    watt_hours, how = _energy(run, seconds, trained)
    if is_hosted(run):
        how += "; without what the service took to train and to answer"
    return {"seconds": seconds, "by_stage": by_stage, "watt_hours": watt_hours, "how": how}


def _energy(run: Path, seconds: float, trained: Mapping[str, Any]) -> tuple[float | None, str]:
    if trained.get("device", "cpu") != "cpu":  # the processor's counters would leave out most of it
        return None, ON_A_CARD
    if (run / NAME).is_file():
        measured = read_json(run / NAME)
        return round(measured["joules"] / 3600, 2), MEASURED.format(seconds=measured["seconds"])
    threads = (trained.get("threads") or 1) * trained.get("processes", 1)
    memory = (trained.get("peak_memory_bytes") or 0) / 1e9
    watts = threads * WATTS_PER_THREAD + memory * WATTS_PER_GIGABYTE
    busy = f"{threads} busy hardware thread{'s' if threads > 1 else ''}"
    how = ESTIMATED.format(threads=busy, watts=WATTS_PER_THREAD, memory=memory, gigabyte=WATTS_PER_GIGABYTE)
    return round(watts * seconds / 3600, 2), how


class Meter:
    """The energy counters of the processor packages, in joules since it was made; they turn over, and are read often
    enough that this is seen."""

    def __init__(self, root: Path = POWERCAP) -> None:
        zones = sorted(root.glob("intel-rapl:*"))  # AMD's processors have the same name here
        self.zones = [zone for zone in zones if _is_package(zone)]
        self.joules = 0.0
        self._before = [_counter(zone / "energy_uj") for zone in self.zones]

    def read(self) -> float:
        """Adds what was used since the reading before; joules in all."""
        for at, zone in enumerate(self.zones):
            now, before = _counter(zone / "energy_uj"), self._before[at]
            if now is None or before is None:
                continue
            turned = 0 if now >= before else (_counter(zone / "max_energy_range_uj") or 0)
            self.joules += (now - before + turned) / 1e6
            self._before[at] = now
        return self.joules


def _is_package(zone: Path) -> bool:
    """Its parts (cores, memory) and the whole platform are counted there again; mostly only root may read any."""
    try:
        is_one = (zone / "name").read_text().startswith("package")
    except OSError:
        return False
    return is_one and os.access(zone / "energy_uj", os.R_OK)


def _counter(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def metered(run: Path, root: Path = POWERCAP) -> Iterator[None]:
    """Adds the energy that the block takes to ``energy.json`` of the run, as it goes, where it can be measured."""
    meter = Meter(root)
    if not meter.zones:
        yield
        return
    earlier = read_json(run / NAME) if (run / NAME).is_file() else {"joules": 0.0, "seconds": 0.0}
    over, start = threading.Event(), time.monotonic()

    def keep() -> None:
        joules, seconds = earlier["joules"] + meter.read(), earlier["seconds"] + time.monotonic() - start
        write_json(run / NAME, {"joules": round(joules, 1), "seconds": round(seconds, 1)})

    def watch() -> None:
        while not over.wait(SECONDS_APART):
            keep()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
        keep()
