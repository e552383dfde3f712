"""EPUB: the chapters of an e-book in the order of its spine (EPUB 3.3, sections 4 and 5), as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.documents.chapters import Block, Cuts, read_blocks
from ownchat.data.documents.html import decode_html, opened_tags
from ownchat.data.documents.html_blocks import HtmlBlocks
from ownchat.data.documents.packages import DAMAGED, Package, local, opened, resolve
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, unreadable

_PAGES = ("application/xhtml+xml", "text/html", "application/xml", "text/xml")
_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")  # obfuscated fonts lock no text


def read_epub(file: InputFile, data: DataConfig) -> Reading:
    """An e-book as documents of about a chapter; ``line`` is the place in the spine.

    Raises :class:`~ownchat.data.files.UnreadableFile` for a book that is damaged or locked (DRM). Chapters that are
    missing or damaged are rows of their own in the ledger.
    """
    cuts = Cuts(file.name)
    with opened(file, "e-book") as package:
        _require_unlocked(package, file.name)
        title, spine = _spine(package)
    blocks = _blocks(file, title, spine, cuts)
    understood = f"{title or 'a book'}: {len(spine)} parts"
    return read_blocks(blocks, file=file.name, format="epub", understood=understood, cuts=cuts)


def recognise_epub(file: InputFile) -> float:
    """By its first member, which says what it is."""
    return 1.0 if file.magic == "epub" else 0.0


# ----------------------------------------------------------------------------------------------------------------


def _require_unlocked(package: Package, name: str) -> None:
    root = package.tree("META-INF/encryption.xml")
    if root is None:
        return
    for element in root.iter():
        if local(element) == "EncryptionMethod" and element.get("Algorithm") not in _FONTS:
            above = element.getparent()
            if above is not None and local(above) == "EncryptedData":
                raise UnreadableFile(
                    "the book is locked (DRM)", where=name, fix="ask its publisher for a copy without a lock"
                )


def _spine(package: Package) -> tuple[str, list[tuple[str, str]]]:
    """The title, and the parts in reading order, each with why it is skipped (or nothing)."""
    container = package.tree("META-INF/container.xml")
    roots = [element.get("full-path") for element in (container.iter() if container is not None else ())
             if local(element) == "rootfile"]  # fmt: skip
    place = roots[0] if roots else next((part for part in sorted(package.parts) if part.endswith(".opf")), "")
    book = package.tree(place) if place else None
    if book is None:
        raise ValueError("it has no table of parts")
    folder = place.rpartition("/")[0]
    title = next(("".join(element.itertext()).strip() for element in book.iter() if local(element) == "title"), "")
    items: dict[str, Any] = {e.get("id", ""): e for e in book.iter() if local(e) == "item"}
    guide = {resolve(folder, e.get("href", "")): e.get("type", "") for e in book.iter() if local(e) == "reference"}
    spine: list[tuple[str, str]] = []
    for element in book.iter():
        item = items.get(element.get("idref", "")) if local(element) == "itemref" else None
        if item is None:
            continue
        part = resolve(folder, item.get("href", ""))
        name = f"{item.get('id', '')} {part.rpartition('/')[2]}".lower()
        reason = ""
        if "nav" in item.get("properties", "").split() or guide.get(part) == "toc":
            reason = "table of contents cut"
        elif guide.get(part) == "cover" or name.startswith("cover") or "/cover" in part.lower():
            reason = "cover cut"
        elif item.get("media-type", _PAGES[0]) not in _PAGES:
            reason = "part without text cut"
        spine.append((part, reason))
    return title, spine


def _blocks(file: InputFile, title: str, spine: list[tuple[str, str]], cuts: Cuts) -> Iterator[Block | Entry]:
    with opened(file, "e-book") as package:
        titled = False
        for number, (part, reason) in enumerate(spine, 1):
            if reason:
                cuts.add(reason, part)
                continue
            try:
                with package.open(part) as stream:
                    source = opened_tags(decode_html(stream.read()))
                found = HtmlBlocks(source, cuts).blocks()
            except (UnreadableFile, *DAMAGED) as error:
                what = error.what if isinstance(error, UnreadableFile) else str(error)[:100]
                yield unreadable(file.name, number, "unreadable part", f"{part}: {what}")
                continue
            if found and title and not titled:
                titled = True
                if title.casefold() not in found[0].text.casefold():
                    yield Block(title, number, level=1)
            for block in found:
                block.line = number
                yield block
