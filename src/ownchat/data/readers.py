"""Which reader a file gets: found from its content, its name only helps.

To add a file format: one reader function (``InputFile, DataConfig -> Reading``) and one line in :data:`READERS`.
"""

from __future__ import annotations

from collections.abc import Callable

from ownchat.config import DataConfig
from ownchat.data.documents import read_text
from ownchat.data.files import InputFile
from ownchat.data.json_rows import looks_like_json, read_json, read_json_lines
from ownchat.data.reading import Reading
from ownchat.data.tables import looks_like_table, read_table

Reader = Callable[[InputFile, DataConfig], Reading]

READERS: dict[str, Reader] = {
    "csv": read_table,
    "jsonl": read_json_lines,
    "json": read_json,
    "text": read_text,
}


def detect(file: InputFile) -> str:
    """The format of a file, a key of :data:`READERS`."""
    if found := looks_like_json(file):
        return found
    if file.suffix in (".csv", ".tsv", ".tab"):
        return "csv"
    if file.suffix not in (".md", ".markdown") and looks_like_table(file):
        return "csv"
    return "text"


def read(file: InputFile, data: DataConfig) -> Reading:
    """Understand a file; its rows stream. Raises :class:`~ownchat.errors.DataError`, see the readers."""
    return READERS[detect(file)](file, data)
