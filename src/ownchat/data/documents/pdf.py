"""PDF: lines become headings and paragraphs; running heads, page numbers and dot leaders are cut and counted."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any, BinaryIO

from ownchat.config import DataConfig
from ownchat.data.documents.chapters import Block, Cuts, read_blocks
from ownchat.data.documents.pdf_layout import Faces, Line, page_lines
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped, unreadable

WINDOW_PAGES = 30  # held at once: what stands at the edge of several of them is a running head
MARGIN = 0.15  # of a page's height, in which its head and its foot stand
EDGE_LINES = 3  # at the top and at the bottom of a page that may be running heads
LOOK_PAGES = 20  # when none of so many has text, and there are no more, the file is a scan

_HEADING_SIZES = ((1.7, 1), (1.35, 2), (1.13, 3))  # times the size of the running text -> level
_ROMAN = "[ivxlcdm]{1,7}"
_PAGE_NUMBER = re.compile(
    rf"[\W_]*(?:(?:page|p\.|seite|s\.|sida|sid|página|pág\.|pagina)\s*)?(?:\d{{1,4}}|{_ROMAN}|[A-Z]-?\d{{1,3}})"
    r"(?:\s*(?:/|of|von|av|de|di|van)\s*\d{1,4})?[\W_]*", re.IGNORECASE,
)  # fmt: skip
_LEADERS = re.compile(rf"(?:\s?\.){{4,}}\s*(?:\d{{1,4}}|{_ROMAN})?$|(?:\s\.){{3,}}\s*\d{{1,4}}$", re.IGNORECASE)
_PAGE_END = re.compile(rf"(?:^|\s)(?:\d{{1,4}}|{_ROMAN})$")
_DIGITS = re.compile(rf"\d+|^{_ROMAN}\b|\b{_ROMAN}$", re.IGNORECASE)
_BULLET = re.compile(r"(?:[•◦▪▸●○■–—*·‣⁃∙\uf0b7\uf0a7\uf076]|-|o(?=\s)|\(?[0-9a-z]{1,2}[.)]|\[\d+\])(?:\s|$)")
_SIGN = re.compile(r"[•◦▪▸●○■·‣⁃∙\uf0b7\uf0a7\uf076]\s*")
_ENDS = tuple('.!?:;。！？…"”»)')
_HYPHEN = re.compile(r"[^\W\d_][-\u2010]$")


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
        raise
    except Exception as error:  # damaged files fail in many ways
        raise _damaged(file.name, error) from error
    cuts = Cuts(file.name)
    pages = f"{count:,} page{'s' if count != 1 else ''}"
    return read_blocks(_blocks(pdf, file.name, cuts), file=file.name, format="pdf", understood=pages, cuts=cuts)


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
                found.setdefault(_squeezed(str(item.title)), depth)

    try:
        walk(pdf.outline, 1)
    except Exception:  # bookmarks are a help, not the text
        return {}
    found.pop("", None)
    return found


def _squeezed(text: str) -> str:
    return re.sub(r"\W+", "", text).casefold()


# ----------------------------------------------------------------------------------------------------------- pages


def _blocks(pdf: Any, name: str, cuts: Cuts) -> Iterator[Block | Entry]:
    faces, outline = Faces(), _outline(pdf)
    flow = _Flow(outline, cuts)
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


def _written(held: list[_Page], start: int, end: int, cuts: Cuts, flow: _Flow, count: int) -> Iterator[Block]:
    """The blocks of some pages, without what stands at the edge of their neighbours too."""
    flow.measure(held)
    seen = Counter(key for page in held for key in {head for row in page.edges for head in _heads(page, row)})
    places = Counter[tuple[int, float]]()  # of running heads, whatever they say: a chapter may have two pages only
    numbers = Counter[int]()
    for page in held:
        for row in page.edges:
            for index, (key, place) in zip(row, _heads(page, row), strict=True):
                places[place, page.lines[index].size] += seen[key, place] >= 3
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
        return "running head cut" if seen[head] >= enough or places[head[1], line.size] >= 5 else ""

    for page in held[start:end]:
        gone: dict[int, str] = {}
        for edge in (page.edges[:EDGE_LINES], page.edges[: -EDGE_LINES - 1 : -1]):
            for row, inner in zip(edge, [*edge[1:], None], strict=True):  # inwards, up to the page's own first line
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
    return rows if len(rows) <= 2 * EDGE_LINES else rows[:EDGE_LINES] + rows[-EDGE_LINES:]


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


# ------------------------------------------------------------------------------------------------------ paragraphs


class _Flow:
    """Lines to blocks: headings by bookmark or size, paragraphs joined over lines and pages."""

    def __init__(self, outline: dict[str, int], cuts: Cuts) -> None:
        self.outline, self.cuts = outline, cuts
        self.body = self.leading = 0.0
        self.words: set[str] = set()  # with a hyphen inside
        self._open: Block | None = None  # the last paragraph of a page, which the next may continue
        self._mono: list[str] = []
        self._left = 0.0  # of the first of them
        self._last_bullet = False

    def measure(self, pages: list[_Page]) -> None:
        """The size and the leading of the running text: those of most characters."""
        sizes, leadings = Counter[float](), Counter[float]()
        for page in pages:
            for line in page.lines:
                sizes[round(line.size * 2) / 2] += len(line.text)
            for above, below in pairwise(page.lines):
                if 0 < above.y - below.y < 3 * above.size and above.size == below.size:
                    leadings[round((above.y - below.y) * 2) / 2] += 1
            if len(self.words) < 50_000:
                self.words.update(
                    word.casefold() for line in page.lines for word in re.findall(r"[^\W\d_]+-[^\W\d_]+", line.text)
                )
        if sizes:
            self.body = sizes.most_common(1)[0][0]
        if leadings:
            self.leading = leadings.most_common(1)[0][0]

    def page(self, lines: list[Line], number: int) -> Iterator[Block]:
        """The blocks that are complete after this page."""
        contents = 3 * sum(_LEADERS.search(line.text) is not None for line in lines) > len(lines)
        right = sorted((line.x1 for line in lines), reverse=True)[len(lines) // 10 :][:1] or [0.0]
        above: Line | None = None
        index = 0
        while index < len(lines):
            line = lines[index]
            if _LEADERS.search(line.text) or (contents and (_PAGE_END.search(line.text) or self._depth([line]))):
                self.cuts.add("table of contents line cut", line.text)
                index, above = index + 1, line
                continue
            level, used = self._heading(lines, index)
            if level:
                yield from self.rest()
                title = self._joined([part.text for part in lines[index : index + used]])
                yield Block(title, number, level)
                index, above = index + used, lines[index + used - 1]
                continue
            if line.mono:
                if not self._mono:
                    yield from self.rest()
                    self._left = line.x0
                    self._open = Block("", number)
                indent = " " * max(round((line.x0 - self._left) / (0.6 * max(line.size, 1))), 0)
                self._mono.append(indent[:60] + line.text)
            elif self._continues(above, line, right[0]):
                assert self._open is not None
                self._open.text = self._joined([self._open.text, line.text])
            else:
                yield from self.rest()
                bullet = bool(_BULLET.match(line.text))
                tight = above is not None and ((bullet and self._last_bullet) or (line.row and above.row))
                self._open = Block(_SIGN.sub("- ", line.text, count=1) if bullet else line.text, number, tight=tight)
                self._last_bullet = bullet
            index, above = index + 1, line

    def rest(self) -> Iterator[Block]:
        """What is still open."""
        block, self._open = self._open, None
        if self._mono:
            assert block is not None
            block.text, self._mono = "```\n" + "\n".join(self._mono) + "\n```", []
        if block is not None and block.text.strip():
            yield block

    def _heading(self, lines: list[Line], index: int) -> tuple[int, int]:
        """The level of the heading that begins here, and how many lines it takes; 0: it is none."""
        line = lines[index]
        alike = [line]
        for below in lines[index + 1 : index + 4]:
            if abs(below.size - line.size) > 0.3 or below.bold != line.bold or alike[-1].y - below.y > 1.6 * line.size:
                break
            if alike[-1].y - below.y < -2:
                break
            alike.append(below)
        for used in range(min(len(alike), 3), 0, -1):
            if self.outline and (depth := self._depth(alike[:used])) and (line.bold or line.size > self.body):
                return depth, used
        if not any(map(str.isalpha, line.text)) or not self.body or line.mono:
            return 0, 0
        ratio = line.size / self.body
        level = next((level for size, level in _HEADING_SIZES if ratio >= size), 0)
        text = " ".join(part.text for part in alike)
        if level and len(alike) <= 3 and len(text) <= 200:
            return level, len(alike)
        gap = lines[index - 1].y - line.y if index else 99.0
        alone = len(alike) == 1 and len(line.text) <= 100 and (gap > 1.25 * self.leading or gap < 0)
        if line.bold and ratio > 0.95 and alone and not line.text.endswith((".", ",", ";", ":")):
            return 4, 1
        return 0, 0

    def _depth(self, lines: list[Line]) -> int:
        text = _squeezed("".join(line.text for line in lines))
        bare = _squeezed(re.sub(r"^\s*(?:(?:chapter|kapitel|appendix|part)\s+)?[\dA-Z]+(?:\.\d+)*\.?\s+", "",
                                " ".join(line.text for line in lines), flags=re.IGNORECASE))  # fmt: skip
        return self.outline.get(text, 0) or self.outline.get(bare, 0)

    def _continues(self, above: Line | None, line: Line, right: float) -> bool:
        """Whether a line goes on with the paragraph that is open."""
        if self._open is None or self._mono or line.row or _BULLET.match(line.text):
            return False
        text = self._open.text
        if above is None:  # the first line of a page
            return not text.endswith(_ENDS) and (line.text[:1].islower() or _HYPHEN.search(text) is not None)
        gap = above.y - line.y
        if gap < -2:  # the next column
            return not text.endswith(_ENDS) and not line.text[:1].isupper()
        if abs(above.size - line.size) > 1.2:
            return False
        if gap > 1.35 * max(self.leading, line.size):
            return False
        if above.row:
            return line.x0 > above.x0 + 2 * line.size  # a later cell that takes several lines
        indented = line.x0 > above.x0 + 0.8 * line.size and not _BULLET.match(text[-200:])
        short = above.x1 < right - 0.25 * (right - above.x0)
        if indented and text.endswith(_ENDS):
            return False
        return not (short and text.endswith(_ENDS))

    def _joined(self, parts: list[str]) -> str:
        """Lines to one text; a word that was parted at a line's end is whole again."""
        text = parts[0].replace("\xad", "") if not parts[0].endswith("\xad") else parts[0]
        for part in parts[1:]:
            if text.endswith("\xad"):
                text = text[:-1] + part
            elif _HYPHEN.search(text) and part[:1].islower():
                before, after = re.findall(r"[^\W\d_]+", text)[-1], re.match(r"[^\W\d_]*", part)
                whole = f"{before}-{after[0] if after else ''}".casefold()
                text = text + part if whole in self.words else text[:-1] + part
            elif text.endswith(("-", "/")) and not text.endswith((" -", " /")):
                text += part
            else:
                text = f"{text} {part}"
        return text
