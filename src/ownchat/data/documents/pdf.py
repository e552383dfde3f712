"""PDF: lines become headings and paragraphs; running heads, page numbers and dot leaders are cut and counted."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat, zip_longest
from typing import Any, BinaryIO

from ownchat.config import DataConfig
from ownchat.data.documents.chapters import Block, Cuts, read_blocks
from ownchat.data.documents.pdf_flow import ROMAN, Flow, squeezed
from ownchat.data.documents.pdf_layout import Faces, Line, page_lines
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped, unreadable

WINDOW_PAGES = 30  # held at once: what stands at the edge of several of them is a running head
MARGIN = 0.15  # of a page's height, in which its head and its foot stand
EDGE_LINES = 3  # at the top and at the bottom of a page that may be running heads
LOOK_PAGES = 20  # when none of so many has text, and there are no more, the file is a scan

_PAGE_NUMBER = re.compile(
    rf"[\W_]*(?:(?:page|p\.|seite|s\.|sida|sid|página|pág\.|pagina)\s*)?(?:\d{{1,4}}|{ROMAN}|[A-Z]-?\d{{1,3}})"
    r"(?:\s*(?:/|of|von|av|de|di|van)\s*\d{1,4})?[\W_]*", re.IGNORECASE,
)  # fmt: skip
_DIGITS = re.compile(rf"\d+|^{ROMAN}\b|\b{ROMAN}$", re.IGNORECASE)


@dataclass
class _Page:
    number: int
    lines: list[Line]
    edges: list[list[int]]  # rows at the top and the bottom, as indices of lines
    low: float = 0.0  # between the two heights no line is a running head
    high: float = 0.0


def read_pdf(file: InputFile, data: DataConfig) -> Reading:
    """The text of a PDF as one document, or several where it is long, cut at headings; ``line`` is the page.

    Raises :class:`~ownchat.data.files.UnreadableFile` for a file that is damaged, locked with a password, or made of
    pictures. A page that is damaged or has no text but a picture is a row of its own in the ledger.
    """
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells of every oddity that it mends
    stream = file.open_binary()
    try:
        pdf = _open(stream, file.name)
        count = len(pdf.pages)
        _require_text(pdf, file.name, count)
    except UnreadableFile:
        stream.close()
        raise
    except Exception as error:  # damaged files fail in many ways
        stream.close()
        raise _damaged(file.name, error) from error
    cuts = Cuts(file.name)
    pages = f"{count:,} page{'s' if count != 1 else ''}"

    def blocks() -> Iterator[Block | Entry]:
        with stream:
            yield from _blocks(pdf, file.name, cuts)

    return read_blocks(blocks(), file=file.name, format="pdf", understood=pages, cuts=cuts)


def recognise_pdf(file: InputFile) -> float:
    """A PDF by its first bytes."""
    return 1.0 if file.magic == "pdf" else 0.0


# --------------------------------------------------------------------------------------------------------- opening


def _open(stream: BinaryIO, name: str) -> Any:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    pdf = PdfReader(stream)
    if not pdf.is_encrypted:
        return pdf
    try:
        if pdf.decrypt(""):
            return pdf
        what = "the PDF is locked with a password"
    except (DependencyError, NotImplementedError):
        what = "the PDF is encrypted"
    raise UnreadableFile(what, where=name, fix="save a copy without encryption (qpdf --decrypt IN.pdf OUT.pdf)")


def _damaged(name: str, error: Exception) -> UnreadableFile:
    reason = f"the PDF is damaged: {type(error).__name__}" + (f": {str(error)[:120]}" if str(error) else "")
    return UnreadableFile(reason, where=name, fix="open it in a viewer and print it into a new PDF")


def _require_text(pdf: Any, name: str, count: int) -> None:
    faces, readable, garbled = Faces(), 0, 0
    problem: Exception | None = None
    for number in range(count):
        try:
            text = "".join(line.text for line in page_lines(pdf.pages[number], faces))
        except Exception as error:
            problem = error
            continue
        garbled += sum(map(text.count, "\ufffd\x7f")) + len(re.findall(r"[\x80-\x9f\ue000-\uf8ff]", text))
        readable += len(text)
        if readable > 200:
            break
        if number >= LOOK_PAGES and not readable:
            break
    if count == 0:
        raise UnreadableFile("the PDF has no page", where=name, fix="open it in a viewer and print it into a new PDF")
    if readable == 0 and problem is not None:
        raise _damaged(name, problem)
    if readable == 0:
        raise UnreadableFile(
            "its pages are pictures without text (a scan)", where=name, fix="run OCR first: ocrmypdf IN.pdf OUT.pdf"
        )
    if garbled > 0.4 * readable:
        raise UnreadableFile(
            "its fonts do not say which letters they show", where=name,
            fix="run OCR first: ocrmypdf --force-ocr IN.pdf OUT.pdf",
        )  # fmt: skip


def _outline(pdf: Any) -> dict[str, int]:
    """Titles of the bookmarks, without white space, and how deep they stand: 1 is a chapter."""
    found: dict[str, int] = {}

    def walk(items: Any, depth: int) -> None:
        for item in items:
            if isinstance(item, list):
                if depth < 6:
                    walk(item, depth + 1)
            elif len(found) < 20_000:
                found.setdefault(squeezed(str(item.title)), depth)

    try:
        walk(pdf.outline, 1)
    except Exception:  # bookmarks are a help, not the text
        return {}
    found.pop("", None)
    return found


# ----------------------------------------------------------------------------------------------------------- pages


def _blocks(pdf: Any, name: str, cuts: Cuts) -> Iterator[Block | Entry]:
    faces, outline = Faces(), _outline(pdf)
    flow = Flow(outline, cuts)
    held: list[_Page] = []
    done = 0  # pages of ``held`` that are written: they stay as the neighbours of those that follow
    count = len(pdf.pages)
    for number in range(count):
        page = pdf.pages[number]
        try:
            lines = page_lines(page, faces)
        except Exception as error:  # a damaged page: the others can be read
            yield unreadable(name, number + 1, "damaged page", f"{type(error).__name__}: {str(error)[:100]}")
            lines = []
        else:
            if not any(line.text.strip() for line in lines) and _has_picture(page):
                yield dropped(name, number + 1, "page without text (a picture)")
        held.append(_Page(number + 1, lines, _edges(lines), *_margins(page)))
        if len(held) == WINDOW_PAGES:
            yield from _written(held, done, 2 * WINDOW_PAGES // 3, cuts, flow, count)
            held, done = held[WINDOW_PAGES // 3 :], WINDOW_PAGES // 3
    yield from _written(held, done, len(held), cuts, flow, count)
    yield from flow.rest()


def _written(held: list[_Page], start: int, end: int, cuts: Cuts, flow: Flow, count: int) -> Iterator[Block]:
    """The blocks of some pages, without what stands at the edge of their neighbours too."""
    flow.measure([page.lines for page in held])
    seen = Counter(key for page in held for key in {head for row in page.edges for head in _heads(page, row)})
    places = Counter[tuple[int, float]]()  # of running heads, whatever they say: a chapter may have two pages only
    occupied, numbers = Counter[tuple[int, float]](), Counter[int]()
    for page in held:
        for row in page.edges:
            for index, (key, place) in zip(row, _heads(page, row), strict=True):
                places[place, page.lines[index].size] += seen[key, place] >= 3
                occupied[place, page.lines[index].size] += 1
                numbers[place] += _PAGE_NUMBER.fullmatch(page.lines[index].text) is not None
    enough = min(3, max(count, 2))

    def rule(page: _Page, index: int, head: tuple[str, int]) -> str:
        line = page.lines[index]
        if page.low < line.y < page.high:
            return ""
        if _PAGE_NUMBER.fullmatch(line.text) and (
            numbers[head[1]] >= enough or re.findall(r"\d+", line.text)[:1] == [str(page.number)]
        ):
            return "page number cut"
        if flow.body and line.size > 1.12 * flow.body:
            return ""  # a heading, such as "Chapter 7"
        kind = (head[1], line.size)
        elsewhere = places[kind] >= 5 and places[kind] > 0.6 * occupied[kind]
        return "running head cut" if seen[head] >= enough or elsewhere else ""

    for page in held[start:end]:
        gone: dict[int, str] = {}
        for edge in (page.edges[: EDGE_LINES + 1], page.edges[: -EDGE_LINES - 2 : -1]):
            for row, inner in zip_longest(edge[:EDGE_LINES], edge[1:]):  # inwards, up to the page's own first line
                if row is None:
                    break
                found = {index: rule(page, index, head) for index, head in zip(row, _heads(page, row), strict=True)}
                if not all(found.values()):
                    break
                gap = abs(page.lines[row[0]].y - page.lines[inner[0]].y) if inner else 99.0
                if gap < 1.4 * flow.leading and not any(
                    map(rule, repeat(page), inner or (), _heads(page, inner or []))
                ):
                    break  # the first line of a paragraph
                gone |= found
        for index, why in gone.items():
            cuts.add(why, page.lines[index].text)
        yield from flow.page([line for index, line in enumerate(page.lines) if index not in gone], page.number)


def _margins(page: Any) -> tuple[float, float]:
    """The heights between which a page has its own text for sure."""
    try:
        box = page.cropbox
        low, high = float(box.bottom), float(box.top)
    except Exception:  # a damaged box
        low, high = 0.0, 842.0
    return (low + MARGIN * (high - low), high - MARGIN * (high - low)) if high > low else (0.0, 0.0)


def _edges(lines: list[Line]) -> list[list[int]]:
    """The rows of a page (indices of lines on one baseline), at most :data:`EDGE_LINES` from the top and bottom."""
    rows: list[list[int]] = []
    for index in sorted(range(len(lines)), key=lambda index: -lines[index].y):
        if rows and abs(lines[rows[-1][0]].y - lines[index].y) < 2:
            rows[-1].append(index)
        else:
            rows.append([index])
    most = EDGE_LINES + 1  # and one more, which tells whether they stand apart
    return rows if len(rows) <= 2 * most else rows[:most] + rows[-most:]


def _heads(page: _Page, row: list[int]) -> list[tuple[str, int]]:
    """Each line of a row as it would come again on other pages: digits aside, at the same height."""
    return [(_DIGITS.sub("#", page.lines[index].text.strip()), _place(page.lines[index])) for index in row]


def _place(line: Line) -> int:
    return round(line.y / 4)


def _has_picture(page: Any) -> bool:
    try:
        forms = page["/Resources"].get_object().get("/XObject", {})
        return any(form.get_object().get("/Subtype") == "/Image" for form in forms.get_object().values())
    except Exception:
        return False
