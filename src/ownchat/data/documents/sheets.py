"""Excel and OpenDocument spreadsheets: sheets of questions and answers give rows, the others documents of rows."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, groupby, islice
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.columns import Columns, choose, is_header, is_named, is_title
from ownchat.data.documents.chapters import Block, Cuts, chapters
from ownchat.data.documents.opendocument import sheet_rows
from ownchat.data.documents.packages import DAMAGED, opened
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped, unreadable
from ownchat.data.records import Record
from ownchat.errors import DataError

LOOK_ROWS = 200
_QUESTIONS = 0.3  # share of cells with a question mark that makes a column of questions

Row = tuple[int, list[str]]  # (number of the row in its sheet, cells)
_Sheet = tuple[str, bool, Iterator[Row]]  # name, whether it is hidden, rows


def read_sheets(file: InputFile, data: DataConfig) -> Reading:
    """Each sheet as rows of questions and answers, where its columns are such (or ``data.map`` says so), else as text.

    ``line`` is the row in the sheet. Hidden sheets are dropped: they hold lists and notes that nobody was to see.
    Formulas give the values that were saved with them. Raises
    :class:`~ownchat.data.files.UnreadableFile` for a damaged file and :class:`~ownchat.errors.DataError` for a
    mapped column that no sheet has.
    """
    format = "ods" if file.magic == "ods" else "xlsx"
    understood: list[str] = []
    columns: dict[str, str] = {}
    with _sheets(file) as sheets:
        for name, hidden, rows in sheets:  # what each sheet is, from its first rows
            if hidden:
                understood.append(f'sheet "{name}": hidden, left out')
                continue
            names, found, _ = _understand(list(islice(rows, LOOK_ROWS)), data, file.name)
            understood.append(f'sheet "{name}": ' + (found.understood(names) if found else "text"))
            columns = columns or (found.named() if found else {})
    if data.map and not columns:
        missing = ", ".join(f'"{name}"' for name in data.map.values())
        raise DataError(f"no sheet has the columns {missing}", where=file.name, fix="check the names after --map")

    def records() -> Iterator[Record | Entry]:
        cuts = Cuts(file.name)
        number = 0
        try:
            with _sheets(file) as sheets:
                for name, hidden, rows in sheets:
                    if hidden:
                        number += 1
                        yield replace(dropped(f"{file.name}/{name}", 1, "hidden sheet"), parents=(file.name,))
                        continue
                    first = list(islice(rows, LOOK_ROWS))
                    names, found, header = _understand(first, data, file.name)
                    everything = chain(first, rows)
                    made = (
                        _pairs(everything, names, found, header, f"{file.name}/{name}", format)
                        if found
                        else chapters(_text(name, everything), file=f"{file.name}/{name}", format=format)
                    )
                    count = 0
                    for item in made:
                        count, number = count + 1, number + 1
                        yield replace(item, parents=(file.name,)) if isinstance(item, Entry) else item
                    if not count:
                        yield replace(dropped(f"{file.name}/{name}", 1, "empty sheet"), parents=(file.name,))
        except UnreadableFile as error:
            yield unreadable(file.name, number + 1, "the spreadsheet ends early", error.what)
        yield from cuts.entries()

    return Reading(format, "; ".join(understood) or "no sheet", records(), columns)


def recognise_sheets(file: InputFile) -> float:
    """By the parts of the package."""
    return 1.0 if file.magic in ("xlsx", "ods") else 0.0


# ----------------------------------------------------------------------------------------------------------------


def _understand(first: Sequence[Row], data: DataConfig, where: str) -> tuple[list[str], Columns | None, int]:
    """Names of the columns, their parts (None: the sheet is text), and the row of the header."""
    filled = [(line, cells) for line, cells in first if any(cells)]
    for line, cells in filled[:10]:  # a title or an empty row may stand above the header
        names = _names(cells)
        mapped = [name for name in data.map.values() if name in names]
        if not (is_named(names) or mapped or is_header(cells)):
            continue
        sample = [dict(zip(names, row, strict=False)) for at, row in filled if at > line]
        try:
            found = choose(names, sample, data.map, where=where)
        except DataError:
            continue
        if found.by_content and not _asks(found, sample):
            continue
        return names, found, line
    return [], None, 0


def _asks(columns: Columns, sample: Sequence[dict[str, str]]) -> bool:
    cells = [row.get(name, "") for row in sample for name in columns.question]
    return bool(cells) and sum("?" in cell for cell in cells) >= _QUESTIONS * len(cells)


def _names(cells: Sequence[str]) -> list[str]:
    names: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = " ".join(cell.split()) or f"column {number}"
        names.append(name if name not in names else f"{name} {number}")
    return names


def _pairs(
    rows: Iterator[Row], names: Sequence[str], columns: Columns, header: int, place: str, format: str
) -> Iterator[Record | Entry]:
    for line, cells in rows:
        if line == header:
            continue
        if line < header or not any(cells):
            if any(cells):
                yield dropped(place, line, "title" if is_title(cells) else "above the header")
            continue
        yield columns.row(dict(zip(names, cells, strict=False)), file=place, format=format, line=line)


def _text(name: str, rows: Iterator[Row]) -> Iterator[Block]:
    titled, before = False, -1
    for line, cells in rows:
        filled = [" ".join(cell.split()) for cell in cells]
        if not any(filled):
            continue
        if not titled:
            yield Block(name, line, level=1)
            titled = True
        while filled and not filled[-1]:
            filled.pop()
        yield Block(" | ".join(filled), line, tight=before == line - 1)
        before = line


@contextmanager
def _sheets(file: InputFile) -> Iterator[Iterator[_Sheet]]:
    if file.magic == "ods":
        grouped = groupby(sheet_rows(file), key=lambda row: row[:2])
        yield ((name, hidden, _numbered(rows)) for (name, hidden), rows in grouped)
        return
    with opened(file, "spreadsheet") as package:
        for part in package.parts:  # openpyxl opens what it needs itself: look for bombs before it does
            if part.startswith("xl/") and part.endswith(".xml"):
                with package.open(part):
                    pass
        book = None
        try:
            from openpyxl import load_workbook

            with file.open_binary() as stream:
                book = load_workbook(stream, read_only=True, data_only=True)
                yield _excel(book)
        except (AttributeError, TypeError, IndexError, *DAMAGED) as error:  # openpyxl on damaged parts
            if isinstance(error, DataError):
                raise
            raise ValueError(str(error)[:100] or type(error).__name__) from error
        finally:
            if book is not None:
                book.close()


def _numbered(rows: Iterator[tuple[str, bool, list[str]]]) -> Iterator[Row]:
    return ((line, cells) for line, (_, _, cells) in enumerate(rows, 1))


def _excel(book: Any) -> Iterator[_Sheet]:
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # the size that a file states is often wrong
        rows = ([_cell(value) for value in row] for row in sheet.iter_rows(values_only=True))
        yield sheet.title, sheet.sheet_state != "visible", enumerate(rows, 1)  # "hidden", "veryHidden"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    if isinstance(value, datetime.datetime):
        return str(value.date() if value.time() == datetime.time() else value.isoformat(" "))
    return str(value).replace("_x000D_", "").replace("\r\n", "\n").strip()
