"""CSV and TSV: the dialect is found by trying, the header by looking, the columns in :mod:`ownchat.data.columns`."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.columns import choose, is_header, is_named
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped
from ownchat.data.records import Record
from ownchat.errors import DataError

DELIMITERS = ",;\t|"
LOOK_ROWS = 200
LARGEST_CELL = 16_000_000  # characters: a longer one is a quote that was never closed


@dataclass(frozen=True)
class Dialect:
    """How cells are separated and quoted."""

    delimiter: str
    escape: str | None = None  # \" inside quotes (MySQL, Postgres), where "" is the standard
    quoted: bool = True  # false: a quotation mark is a character like any other

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        csv.field_size_limit(LARGEST_CELL)  # one limit for the whole process; the default is 128 KB
        quoting: Any = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        return csv.reader(
            lines, delimiter=self.delimiter, quoting=quoting, escapechar=self.escape, doublequote=not self.escape
        )  # fmt: skip


Rows = Iterator[tuple[int, list[str]]]  # (line where the row starts, cells)


def read_table(file: InputFile, data: DataConfig) -> Reading:
    """A table of questions and answers (or of texts, where ``data.map`` has ``text``), row by row.

    Raises :class:`~ownchat.data.files.UnreadableFile` when no column can be an answer, and
    :class:`~ownchat.errors.DataError` for a row with more cells than the header and for a quote that is never closed.
    """
    dialect = sniff(file)
    rows = _rows(file, dialect)
    first = list(islice(rows, LOOK_ROWS))
    filled = [cells for _, cells in first if any(cell.strip() for cell in cells)]
    header = _has_header(filled, data.map)
    names = _names(filled[0]) if header else [f"column {i + 1}" for i in range(max(map(len, filled)))]
    sample = [dict(zip(names, cells, strict=False)) for cells in filled[header:]]
    columns = choose(names, sample, data.map, where=file.name)
    format = "tsv" if dialect.delimiter == "\t" else "csv"

    def records() -> Iterator[Record | Entry]:
        skip_header = header
        for line, cells in chain(first, rows):
            if not any(cell.strip() for cell in cells):
                yield dropped(file.name, line, "empty")
            elif skip_header:
                skip_header = False
            elif any(cell.strip() for cell in cells[len(names) :]):
                raise DataError(
                    f"line {line}: {len(cells)} cells, but there are {len(names)} columns",
                    where=file.name,
                    fix=f'put quotation marks around a cell that has a "{_shown(dialect.delimiter)}" in it',
                )
            else:
                values = dict(zip(names, cells, strict=False))
                yield columns.row(values, file=file.name, format=format, line=line)

    understood = columns.understood(names) + ("" if header else "; no header row")
    return Reading(format, understood, records(), columns.named())


def looks_like_table(file: InputFile) -> bool:
    """Whether a file with any name has a header that names a question and an answer."""
    filled = _sample_rows(file, sniff(file))
    return bool(filled) and len(filled[0]) > 1 and is_named(_names(filled[0]))


def sniff(file: InputFile) -> Dialect:
    """The dialect under which most of the first rows have the same number of cells, the more cells the better."""
    dialects = [Dialect(delimiter) for delimiter in DELIMITERS]
    if '\\"' in file.sample:
        dialects += [Dialect(delimiter, escape="\\") for delimiter in DELIMITERS]
    dialects.append(Dialect("\t", quoted=False))

    def score(dialect: Dialect) -> tuple[float, int]:
        widths = Counter(len(cells) for cells in _sample_rows(file, dialect))
        if not widths:
            return 0.0, 0
        width, count = max(widths.items(), key=lambda item: (item[1], item[0]))
        return (round(count / widths.total(), 3), width) if width > 1 else (0.0, 1)

    return max(dialects, key=score)  # the first of equals: the standard dialect


# ----------------------------------------------------------------------------------------------------------------


def _sample_rows(file: InputFile, dialect: Dialect) -> list[list[str]]:
    lines = io.StringIO(file.sample, newline="").readlines()  # splitlines would also split at U+2028
    if not file.whole and len(lines) > 1:
        lines.pop()  # it may be half a line
    try:
        rows = list(islice(dialect.reader(iter(lines)), LOOK_ROWS))
    except csv.Error:
        return []
    return [cells for cells in rows if any(cell.strip() for cell in cells)]


def _rows(file: InputFile, dialect: Dialect) -> Rows:
    taken, ended = 0, False

    def lines() -> Iterator[str]:
        nonlocal taken, ended
        with file.open_text(newline="") as text:
            for line in text:
                taken += 1
                yield line
        ended = True

    reader, start = dialect.reader(lines()), 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            what = f"line {start}: a row is not readable: {error}"
            raise DataError(what, where=file.name, fix="look for a quotation mark that is never closed") from error
        if cells is None:
            return
        if ended:  # the reader looked for more lines although the row had begun
            what = f"line {start}: a quotation mark opens here and is never closed"
            raise DataError(what, where=file.name, fix='close it (inside a quoted cell, "" stands for one)')
        if not (start == 1 and re.fullmatch(r"sep=.", "".join(cells) + dialect.delimiter)):  # Excel's own remark
            yield start, cells
        start = taken + 1


def _has_header(filled: Sequence[Sequence[str]], mapping: dict[str, str]) -> bool:
    """Whether the first row names the columns: known or mapped names, or short words above longer cells."""
    if not filled:
        return True
    first = [cell.strip() for cell in filled[0]]
    if is_named(first) or any(name in first for name in mapping.values()):
        return True
    if any(re.fullmatch(r"column \d+", name) for name in mapping.values()):
        return False
    words = all(re.fullmatch(r"[^\W\d][\w .\-/#()]{0,39}", cell) and len(cell.split()) <= 4 for cell in first)
    if not words or len(set(first)) < len(first) or len(filled) == 1 or is_header(first):
        return words and len(set(first)) == len(first)
    lengths = [sum(len(cells[i]) for cells in filled[1:] if i < len(cells)) for i in range(len(first))]
    return max(lengths) / (len(filled) - 1) > 2 * max(map(len, first))


def _names(cells: Sequence[str]) -> list[str]:
    """Column names, made unique: "name", "name 2"; one without a name is called after its place."""
    names: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = cell.strip() or f"column {number}"
        copies = sum(other == name or other.startswith(f"{name} ") for other in names)
        names.append(f"{name} {copies + 1}" if name in names else name)
    return names


def _shown(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else delimiter
