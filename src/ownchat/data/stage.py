"""Stage 1: files in, records and a ledger out."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ownchat import artifacts
from ownchat.artifacts import Report
from ownchat.config import Config
from ownchat.data.archives import expand
from ownchat.data.columns import check_map
from ownchat.data.files import find
from ownchat.data.given import check_given
from ownchat.data.importing import Outcome
from ownchat.data.ledger import Ledger
from ownchat.data.plan import Plan, chunks, make_plan
from ownchat.data.readers import check_formats
from ownchat.data.records import shards
from ownchat.data.remote import Source
from ownchat.data.workers import read_chunks
from ownchat.errors import DataError, printable
from ownchat.monitor.progress import console, progress

SECTIONS = ("data",)
MOST_WARNINGS = 3  # of one reason, before only their number is told
UNPACKED, PARTS = "unpacked.tmp", "parts.tmp"


def run(config: Config, inputs: Mapping[str, Source], output: Path) -> Report:
    """Read every file under ``inputs`` (``{"source": path}``, or several of any names, in sorted order).

    Writes shards, the ledger (units ``file``, ``row`` and, for chats and mail, ``message``) and the manifest. What is
    damaged or of an unknown form is an entry of the ledger and a warning. Raises
    :class:`~ownchat.errors.DataError` for a missing path, an empty folder, a single file that cannot be read, and
    when nothing that trains is found.
    """
    sources = [path for _, path in sorted(inputs.items(), key=_input_order)]
    found = find(sources)
    check_map(config.data.map)
    check_formats(config.data.format)
    key = artifacts.stage_key(config, SECTIONS, inputs)
    if (report := artifacts.completed(output, key)) is not None:
        return report
    start = artifacts.start_afresh(output)
    with progress("look", None, "files") as looked:
        plan = make_plan(expand(found, output / UNPACKED), config.data, looked)
    check_given((name for task in plan.tasks for _, name in task.files), config.data)
    if len(found) == 1 and not sources[0].is_dir() and plan.unreadable and not plan.archives:
        raise plan.unreadable[0][1]
    outcomes: list[Outcome] = []
    records = 0
    with Ledger(output) as ledger, progress("import", plan.size, "bytes") as advance:
        ledger.enter("file", len(found))
        files = _set_aside(plan, ledger)
        for folder, made, books in read_chunks(chunks(plan), config.data, output / PARTS, advance):
            ledger.absorb(folder, books)
            records = _take_shards(folder, output, records)
            for outcome in made:
                outcomes.append(outcome)
                for warning in outcome.warnings:
                    _warn(warning)
    shutil.rmtree(output / PARTS, ignore_errors=True)
    shutil.rmtree(output / UNPACKED, ignore_errors=True)
    files += [description for outcome in outcomes for description in outcome.files]
    made_records = sum(description.get("records", 0) for description in files)
    if made_records == 0:
        raise _nothing(plan, outcomes, sources[0])
    counts = {"files": len(files), "records": made_records}
    details = {"ledger": ledger.totals, "rules": ledger.rules, "files": files}
    report = Report("import", output, counts, details, time.monotonic() - start)
    return artifacts.commit(key, config, SECTIONS, report)


# ----------------------------------------------------------------------------------------------------------------

_NOTHING = "give a file or a folder with chats, mail, tickets, reviews, documents, or training files (docs/data.md)"


def _set_aside(plan: Plan, ledger: Ledger) -> list[dict[str, Any]]:
    """Books and warnings for what is not read; archives give way to their members."""
    files: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for archive in plan.archives:
        ledger.fate("file", archive.name, "split", "unpacked", makes=archive.members)
    for one in plan.skipped:
        ledger.fate("file", one.name, "dropped", one.rule, detail=one.skipped)
        counts[one.skipped] += 1
        if one.rule not in ("hidden", "media") and counts[one.skipped] <= MOST_WARNINGS:
            _warn(f"not read: {one.name}: {one.skipped}")
        files.append({"file": one.name, "format": None, "understood as": f"not read: {one.skipped}", "records": 0})
    for reason, count in counts.items():
        if reason == "media":
            _warn(f"not read: {count:,} file{'s' if count > 1 else ''} of pictures, sound, film or programs")
        elif reason != "hidden" and count > MOST_WARNINGS:
            _warn(f"not read: {count - MOST_WARNINGS:,} more: {reason}")
    for name, error in plan.unreadable:
        ledger.fate("file", name, "unreadable", "unreadable file", detail=error.what)
        _warn(f"not read: {error}")
        files.append({"file": name, "format": None, "understood as": f"not read: {error.what}", "records": 0})
    return files


def _take_shards(folder: Path, output: Path, number: int) -> int:
    """Move a chunk's shards behind those that are there; the number of the next one."""
    for shard in shards(folder):
        shard.rename(output / f"{number:05d}.parquet")
        number += 1
    shutil.rmtree(folder)
    return number


def _nothing(plan: Plan, outcomes: Sequence[Outcome], source: Source) -> DataError:
    if plan.unreadable:
        return plan.unreadable[0][1]
    for outcome in outcomes:
        if outcome.problem:
            return DataError(**outcome.problem)
    return DataError("there is nothing to read", where=str(source), fix=_NOTHING)


def _warn(text: str) -> None:
    console.print(printable(text), style="yellow", markup=False)  # a file's name may hold square brackets


def _input_order(item: tuple[str, Source]) -> tuple[str, int]:
    """source-2 comes before source-10."""
    stem, _, number = item[0].rpartition("-")
    return (stem, int(number)) if number.isdigit() else (item[0], -1)
