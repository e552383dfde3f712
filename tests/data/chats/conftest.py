"""What the tests of chat exports share: read a small export, and check that every message has one fate."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ownchat.config import DataConfig
from ownchat.data.files import InputFile, open_file
from ownchat.data.ledger import FATES, Entry
from ownchat.data.readers import detect
from ownchat.data.reading import Reading
from ownchat.errors import DataError


def _balance(reading: Reading, items: list[Any]) -> None:
    entries = [item for item in items if isinstance(item, Entry) and item.unit == "message" and item.fate in FATES]
    made = sum(entry.makes for entry in entries)
    assert reading.entered["message"] + made == sum(entry.count for entry in entries)
    kept = sum(entry.count for entry in entries if entry.fate == "kept")
    assert kept == sum(len(item["messages"]) for item in items if not isinstance(item, Entry) and item["messages"])


class Taken:
    """A file that was read to its end."""

    def __init__(self, reading: Reading, format: str) -> None:
        self.reading, self.format, self.items = reading, format, list(reading.rows)
        _balance(reading, self.items)
        self.entries = [item for item in self.items if isinstance(item, Entry)]
        self.records = [item for item in self.items if not isinstance(item, Entry)]

    @property
    def talks(self) -> list[list[tuple[str, str]]]:
        return [[(turn["role"], turn["content"]) for turn in record["messages"]] for record in self.records]

    @property
    def rules(self) -> dict[str, int]:
        """What became of the messages and rows that are not kept."""
        counts: dict[str, int] = {}
        for entry in self.entries:
            if entry.fate in ("dropped", "unreadable"):
                counts[entry.rule] = counts.get(entry.rule, 0) + entry.count
        return counts

    @property
    def changes(self) -> dict[str, int]:
        return {entry.rule: entry.count for entry in self.entries if entry.fate == "changed"}


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., Taken]:
    """``take(name, content, **settings)``: recognise and read one file."""

    def taken(name: str, content: Any, **settings: Any) -> Taken:
        file = put(tmp_path, name, content)
        format, sure = detect(file)
        assert sure > 0.5
        return Taken(format.read(file, DataConfig(**settings)), format.name)

    return taken


def put(folder: Path, name: str, content: Any) -> InputFile:
    path = folder / name.replace("/", "_")
    text = content if isinstance(content, str | bytes) else json.dumps(content, ensure_ascii=False)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_file(path, name)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[str, Any], InputFile]:
    """``opened(name, content)``: a file as readers get it."""
    return lambda name, content: put(tmp_path, name, content)


@pytest.fixture(scope="session")
def holds() -> Callable[..., None]:
    """``holds(name, content, ...)``: a damaged file is an error of ours or entries in the ledger, and adds up."""

    def check(name: str, content: bytes, **settings: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            try:
                file = put(Path(folder), name, content)
                Taken(detect(file)[0].read(file, DataConfig(**settings)), "")
            except DataError:
                pass

    return check


@pytest.fixture(scope="session")
def items_of() -> Callable[..., list[Any]]:
    """``items_of(talk_of, name, content)``: what a talk gives, turn by turn."""

    def items(talk_of: Callable[[InputFile], Any], name: str, content: Any) -> list[Any]:
        with tempfile.TemporaryDirectory() as folder:
            return list(talk_of(put(Path(folder), name, content)).turns())

    return items
