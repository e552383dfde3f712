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


def row_id(file: str, line: int) -> str:
    """The ledger's id of a row that never became a record."""
    return hashlib.sha256(f"{file}\0{line}".encode()).hexdigest()[:24]


def dropped(file: str, line: int, rule: str) -> Entry:
    """The fate of a row that is not taken, with its place."""
    return Entry("row", row_id(file, line), "dropped", rule, parents=(file,), detail=f"{file}, line {line}")


def unreadable(file: str, line: int, rule: str, detail: str = "") -> Entry:
    """The fate of a row, or of a stretch of a file, that is damaged or not of its file's form, with its place."""
    place = f"{file}, line {line}" + (f": {detail}" if detail else "")
    return Entry("row", row_id(file, line), "unreadable", rule, parents=(file,), detail=place)


def question_answer(
    question: str, answer: str, system: str, group: str, *, file: str, format: str, line: int
) -> Record | Entry:
    """A conversation of one turn, or the reason why the row makes none.

    >>> question_answer("Why?", " ", "", "", file="faq.csv", format="csv", line=7).rule
    'no answer'
    """
    if not (question.strip() or answer.strip()):
        return dropped(file, line, "empty")
    if not answer.strip():
        return dropped(file, line, "no answer")
    if not question.strip():
        return dropped(file, line, "no question")
    messages = [message("system", system)] if system.strip() else []
    messages += [message("user", question), message("assistant", answer)]
    return record(
        "conversation", file=file, format=format, line=line, messages=messages, group=group.strip() or None
    )  # fmt: skip


def document(text: str, group: str, *, file: str, format: str, line: int) -> Record | Entry:
    """A document of one row, or the reason why the row makes none."""
    if not text.strip():
        return dropped(file, line, "empty")
    return record("document", file=file, format=format, line=line, text=text, group=group.strip() or None)
