"""OpenDocument texts and presentations (ODF 1.3 part 3, section 5) as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.documents.chapters import Block, Cuts, read_blocks
from ownchat.data.documents.office import guarded
from ownchat.data.documents.packages import local, opened
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading

_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_DRAW = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}"
_CLASS = "{urn:oasis:names:tc:opendocument:xmlns:presentation:1.0}class"
_LEFT_OUT = {
    "tracked-changes": "deleted text left out",
    "table-of-content": "table of contents cut",
    "annotation": "comment left out",
}
_FIELDS = frozenset(("page-number", "page-count", "header", "footer", "date", "date-time", "time"))
_UNFILLED = re.compile(r"<[^<>]{1,30}>")  # "<number>": what stands in a field that only the printed page fills
MOST_REPEATS = 1000  # of a row or a cell: sheets are filled with empty ones to their end


def read_opendocument(file: InputFile, data: DataConfig) -> Reading:
    """A text or a presentation as documents; ``line`` counts paragraphs, or slides.

    Raises :class:`~ownchat.data.files.UnreadableFile`.
    """
    cuts = Cuts(file.name)
    what = {"odt": "an OpenDocument text", "odp": "an OpenDocument presentation"}[file.magic]
    blocks = guarded(_blocks(file, cuts), file, "document")
    return read_blocks(blocks, file=file.name, format="odt", understood=what, cuts=cuts)


def recognise_opendocument(file: InputFile) -> float:
    """By the first member of the package."""
    return 1.0 if file.magic in ("odt", "odp") else 0.0


def sheet_rows(file: InputFile) -> Iterator[tuple[str, bool, list[str]]]:
    """The rows of an OpenDocument spreadsheet, each with its sheet's name, and whether that is hidden (then empty)."""
    hidden: set[str] = set()  # styles
    with opened(file, "spreadsheet") as package:
        for table in package.elements("content.xml", f"{_TABLE}table", f"{_STYLE}style"):
            if local(table) == "style":
                if any(one.get(f"{_TABLE}display") == "false" for one in table):
                    hidden.add(table.get(f"{_STYLE}name", ""))
                continue
            name = table.get(f"{_TABLE}name", "")
            if table.get(f"{_TABLE}style-name") in hidden:
                yield name, True, []
                continue
            for row in table.iter(f"{_TABLE}table-row"):
                cells: list[str] = []
                for cell in row:
                    if local(cell) in ("table-cell", "covered-table-cell"):
                        text = "\n".join(_text(one) for one in cell if local(one) in ("p", "h")).strip()
                        repeats = _number(cell.get(f"{_TABLE}number-columns-repeated"), 1)
                        cells += [text] * min(repeats, MOST_REPEATS if text else 100)
                while cells and not cells[-1]:
                    cells.pop()
                repeats = _number(row.get(f"{_TABLE}number-rows-repeated"), 1)
                for _ in range(min(repeats, MOST_REPEATS) if cells else 1):
                    yield name, False, cells


# ----------------------------------------------------------------------------------------------------------------


def _blocks(file: InputFile, cuts: Cuts) -> Iterator[Block | Entry]:
    names = ("p", "h", "list", "list-style", "tracked-changes", "table-of-content")
    tags = [f"{_TEXT}{name}" for name in names] + [f"{_TABLE}table", f"{_DRAW}page"]
    lists = _Lists()
    with opened(file, "OpenDocument file") as package:
        if "styles.xml" in package.parts:
            for style in package.elements("styles.xml", f"{_TEXT}list-style"):
                lists.learn(style)
        number = 0
        for element in package.elements("content.xml", *tags):
            if local(element) == "list-style":
                lists.learn(element)
                continue
            number += 1
            if local(element) == "page":
                yield from _slide(element, number)
            else:
                yield from _element(element, number, cuts, lists)


def _element(element: Any, number: int, cuts: Cuts, lists: _Lists) -> Iterator[Block]:
    name = local(element)
    if rule := _LEFT_OUT.get(name):
        cuts.add(rule, " ".join("".join(element.itertext()).split()))
    elif name == "h":
        yield Block(_text(element), number, level=_number(element.get(f"{_TEXT}outline-level"), 1))
    elif name == "p":
        yield Block(_text(element), number)
        for note in (one for one in element.iter() if local(one) == "note"):
            body = next((one for one in note if local(one) == "note-body"), None)
            if body is not None:
                yield Block(f"[^{_citation(note)}]: {' '.join(_text(one) for one in body)}", number)
    elif name == "list":
        for index, text in enumerate(lists.items(element)):
            yield Block(text, number, tight=index > 0)
    elif name == "table":
        yield from _table(element, number)


def _table(table: Any, number: int) -> Iterator[Block]:
    first = True
    for row in table.iter(f"{_TABLE}table-row"):
        cells = [" ".join(_text(one) for one in cell.iter(f"{_TEXT}p")) for cell in row if local(cell) == "table-cell"]
        if any(cells):
            yield Block(" | ".join(cells), number, tight=not first)
            first = False


class _Lists:
    """Which levels of which list styles are numbered, and where lists that go on after a paragraph stand."""

    def __init__(self) -> None:
        self._starts: dict[tuple[str, int], int] = {}  # (style, level) -> first number; bullets are not in it
        self._last: dict[str, int] = {}  # style -> the last number of its last list

    def learn(self, style: Any) -> None:
        """Read a ``text:list-style``."""
        name = style.get(f"{_STYLE}name", "")
        for level in style:
            if local(level) == "list-level-style-number" and level.get(f"{_STYLE}num-format"):
                place = name, _number(level.get(f"{_TEXT}level"), 1)
                self._starts[place] = _number(level.get(f"{_TEXT}start-value"), 1)

    def items(self, element: Any, style: str = "", depth: int = 0) -> Iterator[str]:
        """The paragraphs of a list in Markdown, those of the lists inside of it indented."""
        style = element.get(f"{_TEXT}style-name", style)
        start = self._starts.get((style, depth + 1))
        goes_on = element.get(f"{_TEXT}continue-numbering") == "true" or element.get(f"{_TEXT}continue-list")
        count = self._last.get(style, 0) if goes_on and depth == 0 else (start or 1) - 1
        for item in element if depth < 50 else ():
            mark = ""
            if local(item) == "list-item":
                count = _number(item.get(f"{_TEXT}start-value"), count + 1)
                mark = f"{count}. "
            for one in item:
                if local(one) == "list":
                    yield from self.items(one, style, depth + 1)
                elif local(one) in ("p", "h") and (text := _text(one)):
                    yield "  " * depth + ("- " if start is None else mark or "   ") + text
                    mark = ""  # the second paragraph of an item has no number
        if start is not None and depth == 0:
            self._last[style] = count


def _slide(page: Any, number: int) -> Iterator[Block]:
    title, blocks = "", list[Block]()
    for frame in page:
        lines = [_text(one) for one in frame.iter(f"{_TEXT}p", f"{_TEXT}h")]
        lines = [line for line in lines if line]
        if local(frame) == "notes":
            if lines:
                blocks.append(Block("Notes: " + "\n".join(lines), number))
        elif frame.get(_CLASS) == "title" and not title:
            title = " ".join(lines)
        elif frame.find(f".//{_TABLE}table") is not None:
            for table in frame.iter(f"{_TABLE}table"):
                blocks += _table(table, number)
        else:
            mark = "- " if len(lines) > 1 else ""
            blocks += [Block(mark + line, number, tight=index > 0) for index, line in enumerate(lines)]
    if title or blocks:
        yield Block(title or f"Slide {number}", number, level=2)
    yield from blocks


def _text(element: Any) -> str:
    """The text of a paragraph; notes stand as their mark, comments not at all."""
    parts: list[str] = []

    def walk(one: Any, depth: int) -> None:
        parts.append(one.text or "")
        for inner in one:
            name = local(inner)
            if name == "s":
                parts.append(" " * min(_number(inner.get(f"{_TEXT}c"), 1), 100))
            elif name in ("tab", "line-break"):
                parts.append("\t" if name == "tab" else "\n")
            elif name == "note":
                parts.append(f"[^{_citation(inner)}]")
            elif name in _FIELDS and _UNFILLED.fullmatch(inner.text or ""):
                pass
            elif name not in ("annotation", "") and depth < 200:
                walk(inner, depth + 1)
            parts.append(inner.tail or "")

    walk(element, 0)
    return "".join(parts).strip()


def _citation(note: Any) -> str:
    return next(("".join(one.itertext()) for one in note if local(one) == "note-citation"), "*")


def _number(value: str | None, default: int) -> int:
    return int(value) if value and value.isdigit() and len(value) < 10 else default
