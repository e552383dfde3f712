"""Word, PowerPoint and OpenDocument texts as Markdown: headings, lists, rows of tables, notes.

Word and PowerPoint: ECMA-376 part 1 (WordprocessingML section 17, PresentationML section 19).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.documents.chapters import Block, Cuts, read_blocks
from ownchat.data.documents.packages import DAMAGED, Package, local, opened
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, unreadable

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_W_STRICT = "{http://purl.oclc.org/ooxml/wordprocessingml/main}"
_SKIPPED = frozenset(("del", "moveFrom", "Fallback", "instrText", "delText", "pPr", "rPr", "txbxContent"))
_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
_EDGES = frozenset(("dt", "ftr", "sldNum", "hdr"))  # placeholders around a slide's own text


def read_docx(file: InputFile, data: DataConfig) -> Reading:
    """A Word document, tracked changes accepted; ``line`` is the number of the paragraph or table.

    Headers, footers, comments and deleted text are left out and counted. Raises
    :class:`~ownchat.data.files.UnreadableFile`.
    """
    cuts = Cuts(file.name)
    blocks = guarded(_word(file, cuts), file, "Word document")
    return read_blocks(blocks, file=file.name, format="docx", understood="a Word document", cuts=cuts)


def read_pptx(file: InputFile, data: DataConfig) -> Reading:
    """A presentation: a heading for each slide, its text, tables and notes; ``line`` is the slide.

    Raises :class:`~ownchat.data.files.UnreadableFile`.
    """
    cuts = Cuts(file.name)
    blocks = guarded(_slides(file, cuts), file, "presentation")
    return read_blocks(blocks, file=file.name, format="pptx", understood="a presentation", cuts=cuts)


def recognise_docx(file: InputFile) -> float:
    """By the parts of the package."""
    return 1.0 if file.magic == "docx" else 0.0


def recognise_pptx(file: InputFile) -> float:
    """By the parts of the package."""
    return 1.0 if file.magic == "pptx" else 0.0


# ------------------------------------------------------------------------------------------------------------ Word


@dataclass
class _Styles:
    """What a paragraph's style and numbering say."""

    levels: dict[str, int] = field(default_factory=dict)  # style -> level of a heading
    contents: set[str] = field(default_factory=set)  # styles of a table of contents
    lists: dict[str, tuple[str, int]] = field(default_factory=dict)  # style -> numbering, depth
    numbered: dict[tuple[str, int], bool] = field(default_factory=dict)  # (numbering, depth) -> numbers, not bullets
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)


def _word(file: InputFile, cuts: Cuts) -> Iterator[Block | Entry]:
    with opened(file, "Word document") as package:
        part = next((part for kind, part in package.relations("").values() if kind == "officeDocument"), "")
        part = part if part in package.parts else "word/document.xml"
        relations = package.relations(part)
        styles, notes = _styles(package, relations), _notes(package, relations)
        _left_out(package, relations, cuts)
        number = 0
        last_item = last_row = False
        tags = tuple(f"{space}{name}" for space in (_W, _W_STRICT) for name in ("p", "tbl"))
        for element in package.elements(part, *tags):
            number += 1
            deleted = sum(1 for one in element.iter() if local(one) == "del")
            if deleted:
                cuts.add("deleted text left out", _deleted(element), deleted)
            if local(element) == "tbl":
                for block in _table(element, number):
                    block.tight = last_row
                    last_row, last_item = True, False
                    yield block
                last_row = False
                continue
            paragraph, item = _paragraph(element, number, styles, cuts)
            if paragraph is not None:
                paragraph.tight = item and last_item
                last_item = item
                yield paragraph
            for box in (one for one in element.iter() if local(one) == "txbxContent"):
                if not any(local(above) == "Fallback" for above in box.iterancestors()):
                    for one in box:
                        if local(one) == "p" and (text := _text(one)).strip():
                            yield Block(text.strip(), number)
            for one in element.iter():
                kind = local(one)
                if kind in ("footnoteReference", "endnoteReference"):
                    id = one.get(_key(one, "id"), "")
                    if note := notes.get((kind[:-9], id)):
                        yield Block(f"[^{_mark(kind, id)}]: {note}", number)


def _paragraph(element: Any, number: int, styles: _Styles, cuts: Cuts) -> tuple[Block | None, bool]:
    """The block of a paragraph, and whether it is an item of a list."""
    text = _text(element).strip()
    if not text:
        return None, False
    style, level, numbering, depth = "", 0, "", 0
    properties = next((one for one in element if local(one) == "pPr"), None)
    for one in properties if properties is not None else ():
        value = one.get(_key(one, "val"), "")
        match local(one):
            case "pStyle":
                style = value
            case "outlineLvl" if value.isdigit() and int(value) < 9:
                level = int(value) + 1
            case "numPr":
                for part in one:
                    inner = part.get(_key(part, "val"), "")
                    if local(part) == "numId":
                        numbering = inner
                    elif local(part) == "ilvl" and inner.isdigit():
                        depth = int(inner)
    level = level or styles.levels.get(style, 0)
    if style in styles.contents:
        cuts.add("table of contents line cut", text)
        return None, False
    if level:
        return Block(" ".join(text.split()), number, level=min(level, 6)), False
    if not numbering and style in styles.lists:
        numbering, depth = styles.lists[style]
    if numbering in ("", "0"):
        return Block(text, number), False
    mark = "-"
    if styles.numbered.get((numbering, depth), False):
        styles.counts[numbering, depth] += 1
        mark = f"{styles.counts[numbering, depth]}."
        for deeper in [key for key in styles.counts if key[0] == numbering and key[1] > depth]:
            del styles.counts[deeper]
    return Block("  " * min(depth, 8) + f"{mark} {text}", number), True


def _text(element: Any) -> str:
    """The text of a paragraph as it reads when all changes are accepted."""
    parts: list[str] = []
    stack = [element]
    while stack:
        one = stack.pop()
        name = local(one)
        if name in _SKIPPED:
            continue
        if name == "t":
            parts.append(one.text or "")
        elif name in ("br", "cr"):
            parts.append("\n" if one.get(_key(one, "type"), "") not in ("page", "column") else " ")
        elif name in ("tab", "ptab"):
            parts.append("\t")
        elif name == "noBreakHyphen":
            parts.append("-")
        elif name in ("footnoteReference", "endnoteReference"):
            parts.append(f"[^{_mark(name, one.get(_key(one, 'id'), ''))}]")
        stack.extend(reversed(one))
    return "".join(parts).replace("\xad", "")


def _mark(kind: str, id: str) -> str:
    return id if kind.startswith("foot") else f"e{id}"


def _table(table: Any, number: int) -> Iterator[Block]:
    for row in table.iter():
        if local(row) != "tr" or any(local(above) == "tr" for above in row.iterancestors()):
            continue
        cells = []
        for cell in row.iter():
            if local(cell) == "tc" and next((a for a in cell.iterancestors() if local(a) == "tr"), None) is row:
                texts = (_text(one).strip() for one in cell.iter() if local(one) == "p")
                cells.append(" ".join(" ".join(texts).split()))
        if any(cells):
            yield Block(" | ".join(cells), number)


def _styles(package: Package, relations: dict[str, tuple[str, str]]) -> _Styles:
    styles = _Styles()
    parts = dict(relations.values())
    based: dict[str, str] = {}
    root = package.tree(parts.get("styles", ""))
    for style in root if root is not None else ():
        if local(style) != "style":
            continue
        id = style.get(_key(style, "styleId"), "")
        for one in style.iter():
            value = one.get(_key(one, "val"), "")
            match local(one):
                case "name":
                    if found := _HEADING.fullmatch(value):
                        styles.levels[id] = int(found[1]) or 1
                    elif value.lower() == "title":
                        styles.levels[id] = 1
                    elif re.match(r"toc \d|table of figures", value, re.IGNORECASE):
                        styles.contents.add(id)
                case "basedOn":
                    based[id] = value
                case "outlineLvl" if value.isdigit() and int(value) < 9:
                    styles.levels.setdefault(id, int(value) + 1)
                case "numId":
                    styles.lists[id] = (value, styles.lists.get(id, ("", 0))[1])
                case "ilvl" if value.isdigit():
                    styles.lists[id] = (styles.lists.get(id, ("", 0))[0], int(value))
    for id in based:
        above, steps = based[id], 0
        while above and steps < 20:
            if id not in styles.levels and above in styles.levels:
                styles.levels[id] = styles.levels[above]
            if id not in styles.lists and above in styles.lists:
                styles.lists[id] = styles.lists[above]
            above, steps = based.get(above, ""), steps + 1
    _numbering(package.tree(parts.get("numbering", "")), styles)
    return styles


def _numbering(root: Any, styles: _Styles) -> None:
    abstract: dict[str, dict[int, bool]] = {}
    for one in root if root is not None else ():
        if local(one) == "abstractNum":
            levels = abstract.setdefault(one.get(_key(one, "abstractNumId"), ""), {})
            for level in one:
                if local(level) == "lvl" and (depth := level.get(_key(level, "ilvl"), "")).isdigit():
                    form = next((x.get(_key(x, "val"), "") for x in level if local(x) == "numFmt"), "decimal")
                    levels[int(depth)] = form not in ("bullet", "none")
        elif local(one) == "num":
            id = one.get(_key(one, "numId"), "")
            link = next((x.get(_key(x, "val"), "") for x in one if local(x) == "abstractNumId"), "")
            for depth, numbered in abstract.get(link, {}).items():
                styles.numbered[id, depth] = numbered


def _notes(package: Package, relations: dict[str, tuple[str, str]]) -> dict[tuple[str, str], str]:
    """``{("footnote", "2"): text}``, without the separators that are stored among them."""
    notes: dict[tuple[str, str], str] = {}
    for kind, part in relations.values():
        root = package.tree(part) if kind in ("footnotes", "endnotes") else None
        for note in root if root is not None else ():
            if note.get(_key(note, "type"), "normal") == "normal":
                text = " ".join(_text(note).split())
                if text:
                    notes[kind[:-1], note.get(_key(note, "id"), "")] = text
    return notes


def _left_out(package: Package, relations: dict[str, tuple[str, str]], cuts: Cuts) -> None:
    """Count headers, footers and comments."""
    rules = {"header": "header or footer left out", "footer": "header or footer left out"}
    for kind, part in relations.values():
        rule = "comment left out" if kind == "comments" else rules.get(kind, "")
        root = package.tree(part) if rule else None
        if root is None:
            continue
        for one in root if kind == "comments" else [root]:
            if text := " ".join(_text(one).split()):
                cuts.add(rule, text)


def _deleted(element: Any) -> str:
    return "".join(one.text or "" for one in element.iter() if local(one) == "delText")


def _key(element: Any, name: str) -> str:
    """An attribute's name in the namespace of its element (Word files come in two)."""
    return f"{element.tag.rpartition('}')[0]}}}{name}" if isinstance(element.tag, str) else name


# ------------------------------------------------------------------------------------------------------ PowerPoint


def _slides(file: InputFile, cuts: Cuts) -> Iterator[Block | Entry]:
    with opened(file, "presentation") as package:
        part = next((part for kind, part in package.relations("").values() if kind == "officeDocument"), "")
        part = part if part in package.parts else "ppt/presentation.xml"
        relations, root = package.relations(part), package.tree(part)
        ids = [
            value
            for one in (root.iter() if root is not None else ())
            if local(one) == "sldId"
            for key, value in one.attrib.items()
            if key.endswith("}id")
        ]
        for number, id in enumerate(ids, 1):
            slide = relations.get(id, ("", ""))[1]
            try:
                yield from _slide(package, slide, number, cuts)
            except (UnreadableFile, *DAMAGED) as error:
                what = error.what if isinstance(error, UnreadableFile) else str(error)[:100]
                yield unreadable(file.name, number, "unreadable slide", f"{slide}: {what}")


def _slide(package: Package, part: str, number: int, cuts: Cuts) -> Iterator[Block]:
    root = package.tree(part)
    if root is None:
        raise KeyError("the slide is missing")
    title, blocks = "", list[Block]()
    for shape in root.iter():
        name = local(shape)
        if name == "sp":
            kind = _placeholder(shape)
            lines = _lines(shape)
            if kind in ("title", "ctrTitle") and not title:
                title = " ".join(text for _, text in lines)
            elif kind in _EDGES:
                cuts.add("header or footer left out", " ".join(text for _, text in lines))
            else:
                listed = len(lines) > 1 and kind in ("", "body", "obj")
                for index, (depth, text) in enumerate(lines):
                    mark = "  " * depth + "- " if listed else ""
                    blocks.append(Block(mark + text, number, tight=listed and index > 0))
        elif name == "tbl":
            first = True
            for row in (one for one in shape if local(one) == "tr"):
                cells = [" ".join(text for _, text in _lines(cell)) for cell in row if local(cell) == "tc"]
                if any(cells):
                    blocks.append(Block(" | ".join(cells), number, tight=not first))
                    first = False
    if title or blocks:
        yield Block(title or f"Slide {number}", number, level=2)
    yield from blocks
    for kind, notes in package.relations(part).values():
        page = package.tree(notes) if kind == "notesSlide" else None
        for shape in page.iter() if page is not None else ():
            if local(shape) == "sp" and _placeholder(shape) == "body":
                text = "\n".join(text for _, text in _lines(shape))
                if text:
                    yield Block(f"Notes: {text}", number)


def _placeholder(shape: Any) -> str:
    """The kind of a placeholder; "text" for a shape that is none."""
    found = next((one for one in shape.iter() if local(one) == "ph"), None)
    return "text" if found is None else found.get("type", "")


def _lines(shape: Any) -> list[tuple[int, str]]:
    """Paragraphs with their depth."""
    lines = []
    for one in shape.iter():
        if local(one) != "p":
            continue
        parts = ["\n" if local(x) == "br" else x.text or "" for x in one.iter() if local(x) in ("t", "br")]
        depth = next((x.get("lvl", "0") for x in one if local(x) == "pPr"), "0")
        if text := "".join(parts).strip():
            lines.append((int(depth) if depth.isdigit() else 0, text.replace("\v", "\n")))
    return lines


def guarded(blocks: Iterator[Block | Entry], file: InputFile, what: str) -> Iterator[Block | Entry]:
    """What is read before a damaged place is kept; the damage is a row of the ledger (at the start: an error)."""
    count = 0
    try:
        for block in blocks:
            count += 1
            yield block
    except UnreadableFile as error:
        if not count:
            raise
        yield unreadable(file.name, count, f"the {what} ends early", error.what)
