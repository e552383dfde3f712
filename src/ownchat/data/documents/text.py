"""Plain text and Markdown: one document a file; a very large file becomes several, cut at blank lines.

Every character is kept, with three exceptions that are counted: the front matter of Markdown, soft hyphens, and what
stands around the form feeds of paged text (RFCs, manual pages): running heads, feet and page numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from ownchat.config import DataConfig
from ownchat.data.documents.chapters import Cuts
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped, row_id
from ownchat.data.records import Record, record

PIECE_CHARS = 1_000_000
LONGEST_PIECE = 4 * PIECE_CHARS

_MARKDOWN_SUFFIXES = (".md", ".markdown", ".mdx", ".mkd")
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(?:[^\n]*\n){0,200}?(?:\1|\.\.\.)[ \t]*(?:\n|\Z)")
_KEY = re.compile(r"^[\w-]+\s*[:=]", re.MULTILINE)
_DIGITS = re.compile(r"\d+")
_PAGE_NUMBER = re.compile(r"[\W_]*(?:page\s*)?\d{1,4}[\W_]*", re.IGNORECASE)
_SPACES = re.compile(r"\s+")


def read_text(file: InputFile, data: DataConfig) -> Reading:
    """A document, every character of it (line ends become ``\\n``) but soft hyphens and running heads."""
    return _read(file, "text")


def read_markdown(file: InputFile, data: DataConfig) -> Reading:
    """A document as it stands, without its front matter."""
    return _read(file, "markdown")


def recognise_text(file: InputFile) -> float:
    """The last resort for what is no other format."""
    return 0.0 if file.magic else 0.3 if file.suffix in (".txt", ".text", ".rst", ".adoc", ".asciidoc") else 0.1


def recognise_markdown(file: InputFile) -> float:
    """Markdown by its name, or by headings beside links or fenced code."""
    if file.magic:
        return 0.0
    if file.suffix in _MARKDOWN_SUFFIXES:
        return 0.4
    headings = len(re.findall(r"^#{1,6} \S", file.sample[:50_000], re.MULTILINE))
    other = re.search(r"^```|\]\(https?://|^\s*[-*] \[.\] ", file.sample[:50_000], re.MULTILINE)
    return 0.2 if headings >= 2 and other and file.suffix != ".txt" else 0.0


def pieces(file: InputFile, size: int = PIECE_CHARS) -> Iterator[str]:
    """The text in pieces of about ``size`` characters that add up to the whole; memory is bounded by four of them.

    Cut at the last blank line; where there is none for long, at a line's end, a space, or anywhere.
    """
    return _pieces(_chunks(file, "text", Cuts(file.name)), size)


# ----------------------------------------------------------------------------------------------------------------


def _pieces(chunks: Iterable[str], size: int) -> Iterator[str]:
    held = ""
    for chunk in chunks:
        for start in range(0, len(chunk), size):
            held += chunk[start : start + size]
            while cut := _cut(held, size):
                yield held[:cut]
                held = held[cut:]
    if held:
        yield held


def _read(file: InputFile, format: str) -> Reading:
    cuts = Cuts(file.name)
    stream = _chunks(file, format, cuts)
    short = ""
    for chunk in stream:
        short += chunk
        if len(short) > LONGEST_PIECE:
            break
    else:
        row: Record | Entry = dropped(file.name, 1, "no text")
        if short.strip():
            row = record("document", file=file.name, format=format, line=1, text=short)
        return Reading(format, "one document", [row, *cuts.entries()])

    def records() -> Iterator[Record | Entry]:
        count, line, offset = 0, 1, 0
        for piece in _pieces(chain([short], stream), PIECE_CHARS):
            count += 1
            yield record("document", file=file.name, format=format, line=line, offset=offset, text=piece)
            line, offset = line + piece.count("\n"), offset + len(piece)
        yield Entry("row", parent, "split", "large file", parents=(file.name,), makes=count)
        yield from cuts.entries()

    parent = row_id(file.name, 1)
    return Reading(format, "several documents, cut at blank lines", records(), parent=parent)


def _chunks(file: InputFile, format: str, cuts: Cuts) -> Iterator[str]:
    for chunk in _read_chunks(file, format, cuts):
        if count := chunk.count("\xad"):  # invisible, and another word to every tokenizer
            cuts.add("soft hyphen cut", count=count)
        yield chunk.replace("\xad", "")


def _read_chunks(file: InputFile, format: str, cuts: Cuts) -> Iterator[str]:
    if "\f" in file.sample and (heads := _heads(file.sample)) is not None:
        yield from _unpaged(file, heads, cuts)
        return
    with file.open_text() as text:
        chunk = text.read(PIECE_CHARS)
        if format == "markdown" and (found := _FRONT_MATTER.match(chunk)) and _KEY.search(found[0]):
            cuts.add("front matter cut", found[0].strip("-+ \n"))
            chunk = chunk[found.end() :].lstrip("\n")
        while chunk:
            yield chunk
            chunk = text.read(PIECE_CHARS)


def _heads(sample: str) -> set[str] | None:
    """Lines that stand beside the form feeds again and again, digits aside; None: the form feeds part no pages."""
    pages = [page.split("\n") for page in sample.split("\f")]
    edges = ([*_edge(page), *_edge(page[::-1])] for page in pages)
    seen = Counter(line for edge in edges for line in {_plain(line) for line in edge})
    heads = {line for line, count in seen.items() if count >= 3}
    return heads if len(pages) >= 3 and heads else None


def _edge(lines: list[str]) -> list[str]:
    """The first lines with text, if they are one or two and stand apart from the others: a head, not a paragraph."""
    start = next((index for index, line in enumerate(lines) if line.strip()), len(lines))
    end = next((index for index in range(start, len(lines)) if not lines[index].strip()), len(lines))
    return lines[start:end] if end - start <= 2 else []


def _plain(line: str) -> str:
    return _SPACES.sub(" ", _DIGITS.sub("#", line)).strip()


def _unpaged(file: InputFile, heads: set[str], cuts: Cuts) -> Iterator[str]:
    page: list[str] = []
    before = ""  # the last line with text of what was handed on

    def written() -> str:
        nonlocal before
        lines = page
        for _ in range(2):  # from the top, then from the bottom
            edge = _edge(lines)
            if all(_is_head(line, heads) for line in edge):
                for line in edge:
                    number = _PAGE_NUMBER.fullmatch(line.strip())
                    cuts.add("page number cut" if number else "running head cut", line)
                lines = lines[lines.index(edge[0]) + len(edge) :] if edge else lines
            while lines and not lines[0].strip():
                lines = lines[1:]
            lines = lines[::-1]
        if not lines:
            return ""
        broken = before and before[-1:] not in ".!?:" and lines[0].lstrip()[:1].islower()
        start = "" if not before or broken else "\n"  # a paragraph may go on over the page
        before = lines[-1].strip()
        return start + "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)

    for _, line in file.lines():
        parts = line.split("\f")
        for number, part in enumerate(parts):
            if number:
                cuts.add("form feed cut")
                if text := written():
                    yield text
                page = []
            if part and not (number and part == "\n"):
                page.append(part)
    if text := written():
        yield text


def _is_head(line: str, heads: set[str]) -> bool:
    return _plain(line) in heads or _PAGE_NUMBER.fullmatch(line.strip()) is not None


def _cut(text: str, size: int) -> int:
    """Where to cut, or 0: wait for more text."""
    if len(text) < size:
        return 0
    for mark in ("\n\n", "\n", " "):
        if (found := text.rfind(mark, size // 2)) >= 0:
            return found + len(mark)
        if len(text) < 3 * size:
            return 0
    return len(text)
