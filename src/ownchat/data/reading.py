"""What a reader hands back, and how one question with its answer becomes a record."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ownchat.data.ledger import Entry
from ownchat.data.records import Record, message, record


@dataclass(frozen=True)
class Reading:
    """A file that was understood: in which way, and its rows, which stream.

    Each item of ``rows`` is a record or an entry of the ledger (a row that was dropped, something that was changed).
    ``parent``: id of the one unit that all records are pieces of; it has a "split" entry among the rows. Without it a
    record's parent is its source file. ``entered`` is counted where messages are read, independently of their fates.
    """

    format: str
    understood: str  # for people: 'question = "q", answer = "a"'
    rows: Iterable[Record | Entry]
    columns: dict[str, str] = field(default_factory=dict)
    parent: str = ""
    notes: list[str] = field(default_factory=list)  # for people: who the assistant is and why, what was odd
    aside: bool = False  # a file beside an export, of which no record is expected: no warning that it gives none
    entered: Counter[str] = field(default_factory=Counter)  # units beside rows that came in: {"message": 9}


def row_id(file: str, line: int, offset: int | None = None) -> str:
    """The ledger's id of a row that never became a record; ``offset`` tells the rows of one line apart."""
    place = f"{file}\0{line}" if offset is None else f"{file}\0{line}\0{offset}"
    return hashlib.sha256(place.encode()).hexdigest()[:24]


def place_of(file: str, line: int, offset: int | None = None) -> str:
    """Where a row stands, for people.

    >>> place_of("a.json", 1), place_of("a.json", 1, 6)
    ('a.json, line 1', 'a.json, line 1, number 7 in it')
    """
    return f"{file}, line {line}" if offset is None else f"{file}, line {line}, number {offset + 1} in it"


def dropped(file: str, line: int, rule: str, offset: int | None = None) -> Entry:
    """The fate of a row that is not taken, with its place."""
    detail = place_of(file, line, offset)
    return Entry("row", row_id(file, line, offset), "dropped", rule, parents=(file,), detail=detail)


def unreadable(file: str, line: int, rule: str, detail: str = "", offset: int | None = None) -> Entry:
    """The fate of a row, or of a stretch of a file, that is damaged or not of its file's form, with its place."""
    place = place_of(file, line, offset) + (f": {detail}" if detail else "")
    return Entry("row", row_id(file, line, offset), "unreadable", rule, parents=(file,), detail=place)


def question_answer(
    question: str, answer: str, system: str, group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Record | Entry:
    """A conversation of one turn, or the reason why the row makes none.

    >>> question_answer("Why?", " ", "", "", file="faq.csv", format="csv", line=7).rule
    'no answer'
    """
    if not (question.strip() or answer.strip()):
        return dropped(file, line, "empty", offset)
    if not answer.strip():
        return dropped(file, line, "no answer", offset)
    if not question.strip():
        return dropped(file, line, "no question", offset)
    messages = [message("system", system)] if system.strip() else []
    messages += [message("user", question), message("assistant", answer)]
    return record(
        "conversation", file=file, format=format, line=line, offset=offset, messages=messages,
        group=group.strip() or None,
    )  # fmt: skip


def document(text: str, group: str, *, file: str, format: str, line: int, offset: int | None = None) -> Record | Entry:
    """A document of one row, or the reason why the row makes none."""
    if not text.strip():
        return dropped(file, line, "empty", offset)
    return record(
        "document", file=file, format=format, line=line, offset=offset, text=text, group=group.strip() or None
    )
