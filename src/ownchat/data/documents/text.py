"""Plain text and Markdown: one document a file; a very large file becomes several, cut at blank lines."""

from __future__ import annotations

from collections.abc import Iterator

from ownchat.config import DataConfig
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, row_id
from ownchat.data.records import Record, record

PIECE_CHARS = 1_000_000
LONGEST_PIECE = 4 * PIECE_CHARS


def read_text(file: InputFile, data: DataConfig) -> Reading:
    """A document, every character of it (line ends become ``\\n``). Nothing is stripped."""
    format = "markdown" if file.suffix in (".md", ".markdown") else "text"
    with file.open_text() as text:
        short = text.read(LONGEST_PIECE + 1)
    if len(short) <= LONGEST_PIECE:
        whole = record("document", file=file.name, format=format, line=1, text=short)
        return Reading(format, "one document", [whole])
    parent = row_id(file.name, 1)

    def records() -> Iterator[Record | Entry]:
        count, line, offset = 0, 1, 0
        for piece in pieces(file):
            count += 1
            yield record("document", file=file.name, format=format, line=line, offset=offset, text=piece)
            line, offset = line + piece.count("\n"), offset + len(piece)
        yield Entry("row", parent, "split", "large file", parents=(file.name,), makes=count)

    return Reading(format, "several documents, cut at blank lines", records(), parent=parent)


def pieces(file: InputFile, size: int = PIECE_CHARS) -> Iterator[str]:
    """The text in pieces of about ``size`` characters that add up to the whole; memory is bounded by four of them.

    Cut at the last blank line; where there is none for long, at a line's end, a space, or anywhere.
    """
    held = ""
    with file.open_text() as text:
        while chunk := text.read(size):
            held += chunk
            while cut := _cut(held, size):
                yield held[:cut]
                held = held[cut:]
    if held:
        yield held


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
