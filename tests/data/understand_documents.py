"""A file written and read as the import does it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.files import open_file
from ownchat.data.ledger import Entry
from ownchat.data.readers import detect
from ownchat.data.reading import Reading


def understand(path: Path, content: str | bytes, **data: Any) -> tuple[Reading, list[dict], list[Entry]]:
    """The reading, its records and its entries; the split announces the pieces there are."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    file = open_file(path, path.name)
    reading = detect(file)[0].read(file, DataConfig(**data))
    items = list(reading.rows)
    records = [item for item in items if not isinstance(item, Entry)]
    entries = [item for item in items if isinstance(item, Entry)]
    made = sum(entry.makes for entry in entries)
    assert made == len(records) if reading.parent else made <= len(records)
    assert records or [entry for entry in entries if entry.unit == "row" and entry.fate != "changed"]
    assert len({record["id"] for record in records}) == len(records)
    return reading, records, entries


def changed(entries: list[Entry]) -> Counter[str]:
    """How often each rule cut something."""
    counts: Counter[str] = Counter()
    for entry in entries:
        if entry.fate == "changed":
            counts[entry.rule] += entry.count
    return counts


def text_of(records: list[dict]) -> str:
    """All text of documents."""
    return "".join(record["text"] or "" for record in records)
