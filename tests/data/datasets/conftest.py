"""What every test of a data set's form needs: a file read as the import reads it, and its books."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ownchat.config import DataConfig
from ownchat.data.files import open_file
from ownchat.data.importing import guarded
from ownchat.data.ledger import Entry
from ownchat.data.readers import detect
from ownchat.data.reading import Reading

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[3] / ".." / "shared" / "datasets"))


class Read(NamedTuple):
    """A file that was read: its format's name, the reading, its records, and the entries beside them."""

    format: str
    reading: Reading
    records: list[dict[str, Any]]
    entries: list[Entry]

    @property
    def rules(self) -> Counter[str]:
        return Counter(entry.rule for entry in self.entries)

    @property
    def rows(self) -> int:
        """Rows that have a fate."""
        return len(self.records) + sum(e.unit == "row" and e.fate not in ("changed", "cut") for e in self.entries)


Understand = Callable[..., Read]


@pytest.fixture(scope="session")
def understand() -> Iterator[Understand]:
    """``understand(content, name, **settings)``: content is text or bytes, or a path."""
    with tempfile.TemporaryDirectory() as folder:

        def read(content: str | bytes | Path, name: str = "a.jsonl", **data: Any) -> Read:
            path = content if isinstance(content, Path) else Path(folder) / Path(name).name
            if not isinstance(content, Path):
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            file = open_file(path, name)
            format, _ = detect(file)
            reading = format.read(file, DataConfig(**data))
            items = list(guarded(reading, file.name))
            records = [item for item in items if not isinstance(item, Entry)]
            return Read(format.name, reading, records, [item for item in items if isinstance(item, Entry)])

        yield read


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The folder of shared data sets."""
    if not DATASETS.is_dir():
        pytest.skip("the shared datasets are not here (set OWNCHAT_DATASETS)")
    return DATASETS
