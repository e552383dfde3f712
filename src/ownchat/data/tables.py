"""CSV and TSV: the dialect is found by trying, the header by looking, the columns in :mod:`ownchat.data.columns`."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

from ownchat.config import DataConfig
from ownchat.data.columns import is_header, is_named, title_rows
from ownchat.data.datasets.plain import understand
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped, unreadable
from ownchat.data.records import Record

DELIMITERS = ",;\t|"
LOOK_ROWS = 200
LARGEST_CELL = 16_000_000  # characters: a longer one is a quote that was never closed
MOST_RESTARTS = 100  # quotes that never close, each of which was read to the end of the file


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


class _Row(NamedTuple):
    line: int  # where the row starts
    cells: list[str]
    problem: str = ""  # why the line is no row


def read_table(file: InputFile, data: DataConfig) -> Reading:
    """A table of questions and answers, rated or labelled texts, or of texts (``data.map`` has ``text``), row by row.

    Raises :class:`~ownchat.data.files.UnreadableFile` when no column can be an answer.
    """
    dialect = sniff(file)
    rows = _rows(file, dialect)
    first = list(islice(rows, LOOK_ROWS))
    filled = [row.cells for row in first if any(cell.strip() for cell in row.cells)]
    if not filled:
        problem = next((row.problem for row in first if row.problem), "there is no row in it")
        raise UnreadableFile(f"this is no table: {problem}", where=file.name, fix="save it again as CSV")
    titles = title_rows(filled, data.map)
    filled = filled[titles:]
    header = _has_header(filled, data.map)
    names = _names(filled[0]) if header else [f"column {i + 1}" for i in range(max(map(len, filled)))]
    sample = [dict(zip(names, cells, strict=False)) for cells in filled[header:]]
    columns = understand(
        names, sample, data, where=file.name, all_rows=_values(_rows(file, dialect), names, titles + header)
    )
    format = "tsv" if dialect.delimiter == "\t" else "csv"

    def records() -> Iterator[Record | Entry]:
        above, skip_header = titles, header
        for line, cells, problem in chain(first, rows):
            if problem:
                yield unreadable(file.name, line, "a damaged row", problem)
            elif not any(cell.strip() for cell in cells):
                yield dropped(file.name, line, "empty")
            elif above:
                above -= 1
                yield dropped(file.name, line, "title")
            elif skip_header:
                skip_header = False
            elif any(cell.strip() for cell in cells[len(names) :]):
                what = f"{len(cells)} cells, but there are {len(names)} columns"
                what += f' (a cell that has a "{_shown(dialect.delimiter)}" in it needs quotation marks)'
                yield unreadable(file.name, line, "too many cells", what)
            else:
                values = dict(zip(names, cells, strict=False))
                yield from columns.rows(values, file=file.name, format=format, line=line)
        yield from columns.rest()

    understood = columns.understood(names) + ("" if header else "; no header row")
    return Reading(format, understood, records(), columns.named())


def recognise_table(file: InputFile) -> float:
    """How surely a file is a table of questions and answers, or of texts."""
    if file.suffix in (".csv", ".tsv", ".tab"):
        return 0.75 if looks_like_table(file) else 0.5
    if file.suffix in (".md", ".markdown", ".json", ".jsonl", ".ndjson") or file.magic:
        return 0.0
    return 0.4 if looks_like_table(file) else 0.0


def looks_like_table(file: InputFile) -> bool:
    """Whether a file with any name has a header that names a question and an answer."""
    filled = _sample_rows(file, sniff(file))
    filled = filled[title_rows(filled, {}) :]
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


def _rows(file: InputFile, dialect: Dialect) -> Iterator[_Row]:
    """The rows of a table. Where a quotation mark is never closed, its row is a problem and the next line a row."""
    start = 1
    for _ in range(MOST_RESTARTS):
        taken, ended = start - 1, False

        def lines(first: int) -> Iterator[str]:
            nonlocal taken, ended
            with file.open_text(newline="") as text:
                for line in islice(text, first - 1, None):
                    taken += 1
                    yield line
            ended = True

        reader, problem = dialect.reader(lines(start)), ""
        while not problem:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                problem = f"a row is not readable: {error}"
                break
            if cells is None:
                return
            if ended:  # the reader looked for more lines although the row had begun
                problem = 'a quotation mark opens here and is never closed (inside a quoted cell, "" stands for one)'
            elif not (start == 1 and re.fullmatch(r"sep=.", "".join(cells) + dialect.delimiter)):  # Excel's own remark
                yield _Row(start, cells)
            if not problem:
                start = taken + 1
        yield _Row(start, [], problem)
        start += 1
    yield _Row(start, [], f"the rest is not read: more than {MOST_RESTARTS} rows have quotation marks that never close")


def _values(rows: Iterator[_Row], names: Sequence[str], above: int) -> Iterator[dict[str, str]]:
    """The rows below the first ``above`` ones that are filled."""
    for row in rows:
        if any(cell.strip() for cell in row.cells):
            if above <= 0:
                yield dict(zip(names, row.cells, strict=False))
            above -= 1


def _has_header(filled: Sequence[Sequence[str]], mapping: dict[str, str]) -> bool:
    """Whether the first row names the columns: known or mapped names, or short words above longer cells."""
    if not filled:
        return True
    first = [cell.strip() for cell in filled[0]]
    if is_named(first) or any(name in first for name in mapping.values()):
        return True
    if any(re.fullmatch(r"column \d+", name) for name in mapping.values()):
        return False
    named = first[1:] if len(first) > 2 and not first[0] else first  # a table's own numbers have no name
    words = all(re.fullmatch(r"[^\W\d][\w .\-/#()]{0,39}", cell) and len(cell.split()) <= 4 for cell in named)
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
