"""The tree of a web page as blocks: which part of it is the main text, and how its elements read as Markdown."""

from __future__ import annotations

import html as entities
import re
from typing import Any

from lxml import etree

from ownchat.data.documents.chapters import Block, Cuts

_INVISIBLE_TAGS = frozenset(
    (
        "script",
        "style",
        "template",
        "noscript",
        "svg",
        "iframe",
        "object",
        "embed",
        "canvas",
        "audio",
        "video",
        "head",
        "input",
        "select",
        "textarea",
        "button",
        "annotation",
    )
)
_INVISIBLE_CLASSES = frozenset(("sr-only", "visually-hidden", "headerlink", "skip-link", "mw-editsection"))
_ROLES = frozenset(("navigation", "search", "banner", "contentinfo"))
_NAVIGATION = frozenset(
    (
        "navheader",
        "navfooter",
        "breadcrumb",
        "breadcrumbs",
        "pagination",
        "cookie-banner",
        "sphinxsidebar",
        "related",
    )
)
_SUSPECTS = re.compile(
    r"(?:^|[-_ ])(?:nav\w*|menu\w*|sidebar\w*|breadcrumb\w*|foot(?:er)?|head(?:er)?|masthead|toc|cookies?|banner|share|"
    r"social|related|pag(?:er|ination)|docnav|langs?|languages?)(?:$|[-_ ])", re.IGNORECASE,
)  # fmt: skip
_MAINS = (
    ".//main", ".//*[@role='main']", ".//article", ".//*[@id='mw-content-text']", ".//*[@id='content']",
    ".//*[@id='main']", ".//*[@class='content']", ".//*[@class='document']",
)  # fmt: skip
_NAMES = """
address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption
figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr legend li main nav ol optgroup p pre section
summary table tbody td tfoot th thead tr ul
"""
_BLOCKS = frozenset(_NAMES.split())
_SPACE = re.compile(r"[ \t\r\n\f\u200b]+")
_LAYOUT = frozenset(("table", "h1", "h2", "h3", "h4", "pre", "blockquote"))
_TAG = re.compile(r"<[^<>]{0,10000}>")


class HtmlBlocks:
    """The blocks of one page. ``questions``: where the entries of definition lists begin and end among them.

    ``main_only``: leave out navigation and what stands beside the main text, each counted in ``cuts``.
    """

    def __init__(self, source: str, cuts: Cuts, *, main_only: bool = True) -> None:
        self._source, self._cuts, self._main_only = source, cuts, main_only
        self.questions: list[tuple[int, int]] = []

    def blocks(self) -> list[Block]:
        """Headings, paragraphs, list items, code and rows of tables in order; ``line`` counts the blocks."""
        parser = etree.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
        # The parser is told that it gets UTF-8, whatever the page declares.
        page = etree.fromstring(self._source.encode("utf-8", "replace"), parser)
        if any("depth" in error.message.lower() for error in parser.error_log):  # it leaves out what lies deeper
            return [Block(" ".join(entities.unescape(_TAG.sub(" ", self._source)).split()), 1)]
        body = page.find("body") if page is not None and page.tag == "html" else page
        if body is None:
            return []
        title = " ".join((page.findtext("head/title") or "").split())
        _tidy(body)
        root = self._main(body) if self._main_only else body
        writer = _Writer()
        for event, element in etree.iterwalk(root, events=("start", "end")):
            if event == "start":
                writer.start(element)
            else:
                writer.end(element)
                if element is not root and element.tail:
                    writer.text(element.tail)
        writer.flush()
        if self._main_only and title and writer.blocks and not any(block.level for block in writer.blocks):
            writer.blocks.insert(0, Block(title, 1, level=1))
            writer.terms = [at + 1 for at in writer.terms]
            writer.ends = [at + 1 for at in writer.ends]
        borders = sorted({*writer.terms, *writer.ends, len(writer.blocks)})
        self.questions = [
            (at, min(border for border in borders if border > at)) for at in writer.terms if at < borders[-1]
        ]
        return writer.blocks

    def _main(self, body: Any) -> Any:
        """The element that holds the main text, without the navigation in it."""
        gone: set[Any] = {body}
        for element in list(body.iter()):
            if element in gone:
                continue
            classes = element.get("class", "")
            words = f"{classes} {element.get('id', '')}"
            footer = element.tag == "footer" and element.getparent() is body
            if (
                footer or element.tag == "nav" or element.get("role") in _ROLES
                or not _NAVIGATION.isdisjoint(words.split())
            ):  # fmt: skip
                gone |= self._cut(element, "navigation cut")
            elif element.tag in ("ul", "ol", "table", "dl"):
                length, linked, count = _links(element)
                if count >= 5 and linked > 0.85 * length:
                    gone |= self._cut(element, "list of links cut")
            elif words != " " and element.tag not in ("main", "article") and _SUSPECTS.search(words):
                length, linked, _ = _links(element)
                bare = length < 150 and next(element.iter("h1", "h2", "p", "pre"), None) is None
                if length and (linked > 0.5 * length or bare):
                    gone |= self._cut(element, "navigation cut")
        whole = _length(body)
        for path in _MAINS:
            found = body.findall(path)
            if len(found) == 1 and (length := _length(found[0])) > 0.4 * whole:
                if whole - length > 0.02 * whole:
                    self._cuts.add("text beside the main text cut", f"{whole - length:,} characters")
                return found[0]
        return body

    def _cut(self, element: Any, rule: str) -> set[Any]:
        """Take an element out; all that goes with it."""
        if text := " ".join(" ".join(element.itertext()).split()):
            self._cuts.add(rule, text)
        gone = set(element.iter())
        _remove(element)
        return gone


class _Writer:
    """Takes the elements as they open and close, and writes blocks."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.terms: list[int] = []  # indices of the blocks that are terms of definition lists
        self.ends: list[int] = []  # where definition lists end
        self._parts: list[str] = []
        self._lists: list[int] = []  # the numbers of the lists that are open; -1: bullets
        self._mark = ""  # of the item that has no text yet
        self._level = 0
        self._pre = 0
        self._quote = 0
        self._in_item = False
        self._cells: list[str] | None = None  # of the row that is open, in a table of data
        self._tables: list[bool] = []
        self._row_before = False

    def text(self, text: str) -> None:
        self._parts.append(text)

    def start(self, element: Any) -> None:
        self._open(element, element.tag)
        if element.text:
            self._parts.append(element.text)

    def _open(self, element: Any, tag: str) -> None:
        if tag == "br":
            self._parts.append("\n" if self._pre else "\0")
            return
        if tag not in _BLOCKS:
            return
        if self._tables and self._tables[-1] and tag not in ("table", "tr", "td", "th", "caption"):
            self._parts.append(" ")
            return
        self.flush()
        match tag:
            case "h1" | "h2" | "h3" | "h4" | "h5" | "h6":
                self._level = int(tag[1])
            case "pre":
                self._pre += 1
            case "blockquote":
                self._quote += 1
            case "ul" | "dl":
                self._lists.append(-1)
            case "ol":
                start = element.get("start", "1")
                self._lists.append(int(start) - 1 if start.isdigit() and len(start) < 9 else 0)
            case "li":
                mark = "-"
                if self._lists and self._lists[-1] >= 0:
                    self._lists[-1] += 1
                    mark = f"{self._lists[-1]}."
                self._mark = "  " * max(len(self._lists) - 1, 0) + mark + " "
            case "dt":
                self.terms.append(len(self.blocks))
            case "table":
                self._tables.append(_is_data(element))
                self._row_before = False
            case "tr" if self._tables and self._tables[-1]:
                self._cells = []

    def end(self, element: Any) -> None:
        tag = element.tag
        if tag not in _BLOCKS:
            return
        data = bool(self._tables) and self._tables[-1]
        if data and tag in ("td", "th"):
            if self._cells is not None:
                self._cells.append(" ".join("".join(self._parts).replace("\0", " ").split()))
            self._parts = []
            return
        if data and tag == "tr":
            cells, self._cells, self._parts = self._cells or [], None, []
            if any(cells):
                self.blocks.append(Block(" | ".join(cells), len(self.blocks) + 1, tight=self._row_before))
                self._row_before = True
            return
        if data and tag not in ("table", "caption"):
            return
        self.flush()
        match tag:
            case "h1" | "h2" | "h3" | "h4" | "h5" | "h6":
                self._level = 0
            case "pre":
                self._pre = max(self._pre - 1, 0)
            case "blockquote":
                self._quote = max(self._quote - 1, 0)
            case "ul" | "ol" | "dl" if self._lists:
                self._lists.pop()
                self.ends.append(len(self.blocks))
            case "li":
                self._mark = ""
            case "table" if self._tables:
                self._tables.pop()

    def flush(self) -> None:
        """End the paragraph that is open."""
        if not self._parts:
            return
        text, self._parts = "".join(self._parts).replace("\xad", ""), []  # soft hyphens: nobody sees them
        if self._pre:
            text = text.replace("\0", "\n").strip("\n").rstrip()
            text = f"```\n{text}\n```" if text.strip() else ""
        else:
            text = _SPACE.sub(" ", text).replace(" \0", "\0").replace("\0 ", "\0").strip("\0 \xa0").replace("\0", "\n")
        if not text.strip():
            return
        if self._level:
            text = " ".join(text.split())
        tight = bool(self._mark) and bool(self.blocks) and self._in_item
        if self._mark:
            text, self._in_item = self._mark + text, True
            self._mark = ""
        elif self._lists and self._in_item:
            indent = "  " * len(self._lists)
            text = indent + text.replace("\n", f"\n{indent}")
            tight = False
        else:
            self._in_item = False
        if self._quote and not self._level:
            text = "> " + text.replace("\n", "\n> ")
        self.blocks.append(Block(text, len(self.blocks) + 1, level=self._level, tight=tight and not self._level))
        self._row_before = False


# ----------------------------------------------------------------------------------------------------------------


def _tidy(body: Any) -> None:
    """Take out what nobody sees on the page."""
    for element in list(body.iter()):
        if element is not body and (
            element.tag in _INVISIBLE_TAGS
            or "hidden" in element.attrib
            or element.get("aria-hidden") == "true"
            or not _INVISIBLE_CLASSES.isdisjoint(element.get("class", "").split())
        ):
            _remove(element)


def _remove(element: Any) -> None:
    """Take an element out; the text after it stays."""
    parent = element.getparent()
    if parent is None:
        return
    if element.tail:
        before = element.getprevious()
        if before is not None:
            before.tail = (before.tail or "") + element.tail
        else:
            parent.text = (parent.text or "") + element.tail
    parent.remove(element)


def _length(element: Any) -> int:
    return sum(len(part.strip()) for part in element.itertext())


def _links(element: Any) -> tuple[int, int, int]:
    """Characters of an element, those of them in links, and how many links."""
    links = [link for link in element.iter("a") if link.get("href")]
    return _length(element), sum(map(_length, links)), len(links)


def _is_data(table: Any) -> bool:
    """Whether a table holds rows of cells, and does not only arrange a page."""
    if any(element is not table and element.tag in _LAYOUT for element in table.iter()):
        return False
    return any(sum(cell.tag in ("td", "th") for cell in row) >= 2 for row in table.iter("tr"))
