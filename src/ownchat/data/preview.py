"""What an import would find, without writing anything: formats, counts, problems, and the first records."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from ownchat.config import Config
from ownchat.data.archives import expand
from ownchat.data.columns import check_map
from ownchat.data.files import InputFile, UnreadableFile, find, open_file
from ownchat.data.given import columns_only, with_split
from ownchat.data.importing import guarded, with_system
from ownchat.data.ledger import Entry
from ownchat.data.plan import Task, make_plan
from ownchat.data.readers import FORMATS, check_formats
from ownchat.data.records import to_batch
from ownchat.data.remote import Source

MOST_BYTES = 16_000_000  # of each file: counts of larger ones are "at least"
MOST_SECONDS = 10.0  # for each file, likewise
MOST_PROBLEMS = 5


def preview(config: Config, source: Source, rows: int = 3) -> list[dict[str, Any]]:
    """How each file under ``source`` would be understood, in the order of an import; writes nothing.

    Each item has ``file`` and either ``problem`` (why it is not read) or ``format``, ``confidence`` (0 to 1),
    ``encoding``, ``understood``, ``columns``, ``notes``, ``files`` (how many are read as one), the counts
    ``conversations documents preferences messages``, ``set_aside`` ({rule: count} of rows and messages that make no
    record), ``problems`` (the first unreadable rows), ``complete`` (false: only the beginning was looked at) and
    ``records`` (the first ``rows``).
    """
    check_map(config.data.map)
    check_formats(config.data.format)
    described: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="ownchat-") as room:
        plan = make_plan(expand(find([source]), Path(room)), config.data)
        described += [{"file": one.name, "problem": one.skipped, "rule": one.rule} for one in plan.skipped]
        described += [{"file": name, "problem": error.what, "fix": error.fix} for name, error in plan.unreadable]
        described += [_look(task, config, rows) for task in plan.tasks]
    return sorted(described, key=lambda item: item["file"])


def _look(task: Task, config: Config, rows: int) -> dict[str, Any]:
    format = FORMATS[task.format]
    label = task.files[0][1]
    files: list[InputFile] = []
    problems: list[str] = []
    for path, name in task.files:
        try:
            files.append(replace(open_file(path, name, beginning_only=True), most_bytes=MOST_BYTES))
        except UnreadableFile as error:
            problems.append(str(error))
    told = columns_only(config.data)
    try:
        reading = format.together(files, told) if format.together else format.read(files[0], told)
    except Exception as error:  # damaged input may raise anything in a reader's library
        what = getattr(error, "what", f"{type(error).__name__}: {error}")
        return {"file": label, "problem": what, "fix": getattr(error, "fix", "")}
    counts: Counter[str] = Counter()
    aside: Counter[str] = Counter()
    records: list[dict[str, Any]] = []
    complete = all(file.magic or file.compression or file.size <= MOST_BYTES for file in files)
    start = time.monotonic()
    for item, _ in with_split(with_system(guarded(reading, label), config.data.system), config.data):
        if not isinstance(item, Entry):
            counts[item["kind"]] += 1
            counts["messages"] += len(item["messages"] or ())
            if len(records) < rows:
                records.append(item)
        elif item.fate == "unreadable":
            problems.append(f"{item.rule}: {item.detail}")
        elif item.fate == "dropped":
            aside[item.rule] += item.count
        if time.monotonic() - start > MOST_SECONDS:
            complete = False
            break
    return {
        "file": label,
        "files": len(task.files),
        "format": reading.format,
        "confidence": round(task.confidence, 2),
        "encoding": files[0].encoding if not files[0].magic else None,
        "compression": files[0].compression,
        "understood": reading.understood,
        "columns": reading.columns,
        "notes": reading.notes + [note for file in files[:1] for note in file.decoding.notes],
        "conversations": counts["conversation"],
        "documents": counts["document"],
        "preferences": counts["preference"],
        "messages": counts["messages"],
        "set_aside": dict(aside),
        "problems": problems[:MOST_PROBLEMS]
        + ([f"and {len(problems) - MOST_PROBLEMS:,} more"] if len(problems) > MOST_PROBLEMS else []),
        "complete": complete,
        "records": to_batch(records).to_pylist(),
    }
