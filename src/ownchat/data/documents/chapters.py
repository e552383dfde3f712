"""Blocks of a document to records: short documents stay whole, long ones are cut at headings, about a chapter each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped, row_id
from ownchat.data.records import Record, record

# A heading of this level begins a new record once so many characters are held; a plain paragraph (0) only at the end.
ENOUGH = {1: 10_000, 2: 30_000, 3: 60_000, 4: 60_000, 5: 60_000, 6: 60_000, 0: 120_000}
LONGEST_BLOCK = 400_000  # characters: a paragraph or table beyond it is cut at a line's end


@dataclass(slots=True)
class Block:
    """A paragraph, list, table or heading. ``level``: 0 for text, 1 to 6 for a heading.

    ``line`` is the place in the source: a paragraph's number, a page, a slide, a row. ``tight``: one line end, and
    no blank line, stands before it (items of a list).
    """

    text: str
    line: int
    level: int = 0
    tight: bool = False

    @property
    def markdown(self) -> str:
        """The text with the marks of its level.

        >>> Block("Setting up", 1, level=2).markdown
        '## Setting up'
        """
        return f"{'#' * min(self.level, 6)} {self.text}" if self.level else self.text


class Cuts:
    """Counts what is taken out of a document on purpose, with a few examples of each rule."""

    def __init__(self, file: str) -> None:
        self._file, self._counts = file, Counter[str]()
        self._examples: dict[str, list[str]] = {}

    def add(self, rule: str, example: str = "", count: int = 1) -> None:
        """``count`` more lines (pages, elements) fell under ``rule``."""
        self._counts[rule] += count
        examples = self._examples.setdefault(rule, [])
        if example and len(examples) < 3 and (short := " ".join(example.split())[:60]) not in examples:
            examples.append(short)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def entries(self) -> Iterator[Entry]:
        """One event for each rule: "changed", beside the fate that the document has."""
        for rule, count in self._counts.items():
            detail = self._file + "".join(f'; "{example}"' for example in self._examples[rule])
            yield Entry("row", row_id(self._file, 1), "changed", rule, count=count, detail=detail)


def read_blocks(blocks: Iterable[Block | Entry], *, file: str, format: str, understood: str, cuts: Cuts) -> Reading:
    """A reading of one document: one record, or several under one "split" entry.

    ``blocks`` is read up to the end of the second record at once, so errors at the beginning of a file are raised
    here. A document without any text is one dropped row.
    """
    rows = chapters(blocks, file=file, format=format)
    first: list[Record | Entry] = []
    made = 0
    for row in rows:
        first.append(row)
        made += not isinstance(row, Entry)
        if made == 2:
            break
    if made == 0 and not any(isinstance(row, Entry) and row.fate != "changed" for row in first):
        first.append(dropped(file, 1, "no text"))
    if made < 2:
        return Reading(format, understood, chain(first, cuts.entries()))
    parent = row_id(file, 1)

    def pieces() -> Iterator[Record | Entry]:
        count = 0
        for row in chain(first, rows):
            count += not isinstance(row, Entry)
            yield row
        yield Entry("row", parent, "split", "long document", parents=(file,), makes=count)
        yield from cuts.entries()

    return Reading(format, f"{understood}, cut at headings", pieces(), parent=parent)


def chapters(blocks: Iterable[Block | Entry], *, file: str, format: str) -> Iterator[Record | Entry]:
    """Records of about a chapter each; entries among the blocks are passed on."""
    held: list[str] = []
    size, line, offset = 0, 1, 0

    def made() -> Record:
        return record("document", file=file, format=format, line=line, offset=offset, text="".join(held) + "\n")

    for block in _bounded(blocks):
        if isinstance(block, Entry):
            yield block
            continue
        if "\xad" in block.text:  # where a word may be parted: invisible, and another word to every tokenizer
            block = replace(block, text=block.text.replace("\xad", ""))
        if not block.text.strip():
            continue
        if held and size >= ENOUGH[min(block.level, 6)]:
            yield made()
            offset += size + 1
            held, size = [], 0
        if not held:
            line = max(block.line, 1)
        piece = ("" if not held else "\n" if block.tight else "\n\n") + block.markdown
        held.append(piece)
        size += len(piece)
    if held:
        yield made()


def _bounded(blocks: Iterable[Block | Entry]) -> Iterator[Block | Entry]:
    for block in blocks:
        if isinstance(block, Entry) or len(block.text) <= LONGEST_BLOCK:
            yield block
            continue
        text, tight = block.text, block.tight
        while text:
            end = len(text)
            if end > LONGEST_BLOCK:
                found = max(text.rfind("\n", LONGEST_BLOCK // 2, LONGEST_BLOCK), 0)
                end = found or max(text.rfind(" ", LONGEST_BLOCK // 2, LONGEST_BLOCK), 0) or LONGEST_BLOCK
            yield Block(text[:end], block.line, block.level, tight)
            text, tight = re.sub(r"\A[ \n]", "", text[end:]), True
