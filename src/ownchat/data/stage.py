"""Stage 1: files in, records and a ledger out. Also the preview, which shows how files would be understood."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from ownchat import artifacts
from ownchat.artifacts import Report
from ownchat.config import Config
from ownchat.data.columns import check_map
from ownchat.data.files import Found, UnreadableFile, find, open_file
from ownchat.data.ledger import Entry, Ledger
from ownchat.data.readers import read
from ownchat.data.reading import Reading
from ownchat.data.records import Record, ShardWriter, batched, message
from ownchat.errors import DataError, printable
from ownchat.monitor.progress import Advance, console, progress

SECTIONS = ("data",)


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> Report:
    """Read every file under ``inputs`` (``{"source": path}``, or several of any names, in sorted order).

    Writes shards, the ledger (units ``file`` and ``row``) and the manifest. Raises
    :class:`~ownchat.errors.DataError` for a missing path, an empty folder, a single file that cannot be read, a row
    that is not of its file's form, and when nothing that trains is found.
    """
    sources = [path for _, path in sorted(inputs.items(), key=_input_order)]
    found = find(sources)
    check_map(config.data.map)
    key = artifacts.stage_key(config, SECTIONS, inputs)
    if (report := artifacts.completed(output, key)) is not None:
        return report
    start = artifacts.start_afresh(output)
    total = sum(one.path.stat().st_size for one in found if not one.skipped and one.path.is_file())
    files: list[dict[str, Any]] = []
    first_problem: DataError | None = None
    with (
        Ledger(output) as ledger,
        ShardWriter(output) as writer,
        progress("import", total, "bytes") as advance,
    ):
        for one in found:
            ledger.enter("file")
            alone = len(found) == 1 and not sources[0].is_dir()
            description, problem = _import_file(one, config, ledger, writer, advance, alone=alone)
            first_problem = first_problem or problem
            files.append(description)
        if writer.rows == 0:
            raise first_problem or DataError("there is nothing to read", where=str(sources[0]), fix=_NOTHING)
    counts = {"files": len(files), "records": writer.rows}
    details = {"ledger": ledger.totals, "rules": ledger.rules, "files": files}
    report = Report("import", output, counts, details, time.monotonic() - start)
    return artifacts.commit(key, config, SECTIONS, report)


def preview(config: Config, source: Path, rows: int = 3) -> list[dict[str, Any]]:
    """How each file under ``source`` would be understood, with its first records; writes nothing.

    Each item has ``file`` and either ``problem`` (why it would not be read) or ``format``, ``encoding``,
    ``understood``, ``columns``, ``records`` (the first ``rows`` of them) and ``dropped`` (entries met on the way).
    """
    check_map(config.data.map)
    described: list[dict[str, Any]] = []
    for one in find([source]):
        if one.skipped:
            described.append({"file": one.name, "problem": one.skipped})
            continue
        try:
            file = open_file(one.path, one.name, beginning_only=True)
            reading = read(file, config.data)
            first = list(islice(_with_system(reading, config.data.system), rows))
        except (DataError, ValueError, EOFError, zlib.error, OSError) as error:  # whatever a beginning can hide
            described.append({"file": one.name, "problem": str(error)})
            continue
        described.append(
            {
                "file": one.name,
                "format": reading.format + (", gzip" if file.gzipped else ""),
                "encoding": file.encoding,
                "understood": reading.understood,
                "columns": reading.columns,
                "records": [item for item, _ in first if not isinstance(item, Entry)],
                "dropped": [f"{item.rule} ({item.detail})" for item, _ in first if isinstance(item, Entry)],
            }
        )
    return described


# ----------------------------------------------------------------------------------------------------------------

_NOTHING = "give a file or a folder with CSV, JSON Lines, JSON, text or Markdown files"


def _import_file(
    one: Found, config: Config, ledger: Ledger, writer: ShardWriter, advance: Advance, *, alone: bool
) -> tuple[dict[str, Any], DataError | None]:
    """Read one file into shards and ledger; what it was, and what stood in the way of using it."""
    if one.skipped:
        rule = "hidden" if one.skipped == "hidden" else "special"
        ledger.fate("file", one.name, "dropped", rule, detail=one.skipped)
        if rule != "hidden":
            _warn(f"not read: {one.name}: {one.skipped}")
        return {"file": one.name, "format": None, "understood as": f"not read: {one.skipped}", "records": 0}, None
    try:
        file = replace(open_file(one.path, one.name), on_bytes=_advance_to(one.path.stat().st_size, advance))
        reading = read(file, config.data)
    except UnreadableFile as error:
        if alone:
            raise
        ledger.fate("file", one.name, "unreadable", "unreadable file", detail=error.what)
        _warn(f"not read: {error}")
        return {"file": one.name, "format": None, "understood as": f"not read: {error.what}", "records": 0}, error
    if file.guessed:
        ledger.event("file", one.name, "changed", f"decoded as {file.encoding}")
    counter = _Counter(one.name, reading, ledger)
    for batch in batched(counter.records(config.data.system)):
        writer.write(batch)
        for id in batch.column("id").to_pylist():
            ledger.fate("row", id, "kept", "import", parents=(reading.parent or one.name,))
    ledger.fate("file", one.name, "kept", f"read as {reading.format}", detail=reading.understood)
    if counter.with_system:
        ledger.event("row", one.name, "changed", "system prompt added", count=counter.with_system)
    problem = None
    if counter.records_made == 0:
        problem = _no_record(one.name, counter.first_dropped)
        if not alone:
            _warn(str(problem))
    description = {
        "file": one.name,
        "format": reading.format,
        "encoding": file.encoding,
        "columns": reading.columns,
        "understood as": reading.understood,
        "rows": counter.rows,
        "records": counter.records_made,
    }
    return description, problem


class _Counter:
    """Passes a file's records on, and enters its rows and their entries into the books."""

    def __init__(self, name: str, reading: Reading, ledger: Ledger) -> None:
        self.name, self.reading, self.ledger = name, reading, ledger
        self.rows = self.records_made = self.with_system = 0
        self.first_dropped: Entry | None = None

    def records(self, system: str | None) -> Iterator[Record]:
        for item, with_system in _with_system(self.reading, system):
            if isinstance(item, Entry):
                if item.fate != "changed":
                    self._enter()
                if item.fate == "dropped" and self.first_dropped is None:
                    self.first_dropped = item
                self.ledger.add([item])
                continue
            if not self.reading.parent:  # pieces enter through the split that makes them
                self._enter()
            self.records_made += 1
            self.with_system += with_system
            yield item

    def _enter(self) -> None:
        self.rows += 1
        self.ledger.enter("row")


def _with_system(reading: Reading, system: str | None) -> Iterator[tuple[Record | Entry, bool]]:
    """Rows, with the system message put before conversations that have none (their ids stay), and whether it was."""
    for item in reading.rows:
        add = (
            bool(system)
            and not isinstance(item, Entry)
            and item["kind"] == "conversation"
            and all(turn["role"] != "system" for turn in item["messages"])
        )
        if add:
            assert not isinstance(item, Entry)
            item["messages"] = [message("system", str(system)), *item["messages"]]
        yield item, add


def _no_record(name: str, first: Entry | None) -> DataError:
    if first is None:
        return DataError("the file has no rows", where=name, fix="put at least one row under the header")
    place = first.detail.rpartition(", ")[2] or "line 1"
    fixes = {
        "no answer": "fill the answer's column, or say which one it is: --map answer=COLUMN",
        "no question": "fill the question's column, or say which one it is: --map question=COLUMN",
        "no assistant turn": 'add a message with "role": "assistant": it is what the model learns',
        "no trained turn": 'give at least one assistant message "weight": 1',
    }
    return DataError(
        f"no row can be used; the first is {place}: {first.rule}", where=name, fix=fixes.get(first.rule, "")
    )


def _warn(text: str) -> None:
    console.print(printable(text), style="yellow", markup=False)  # a file's name may hold square brackets


def _input_order(item: tuple[str, Path]) -> tuple[str, int]:
    """source-2 comes before source-10."""
    stem, _, number = item[0].rpartition("-")
    return (stem, int(number)) if number.isdigit() else (item[0], -1)


def _advance_to(size: int, advance: Advance) -> Callable[[int], None]:
    """Advance by bytes read, at most by the file's size: a reader may look at the beginning twice."""
    seen = 0

    def on_bytes(count: int) -> None:
        nonlocal seen
        count = min(count, size - seen)
        seen += count
        if count:
            advance(count)

    return on_bytes
