"""Rows of texts without a published form: question and answer, rated texts, labelled texts, or documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ownchat.config import DataConfig
from ownchat.data.columns import Columns, choose
from ownchat.data.datasets.labels import find_labels
from ownchat.data.datasets.reviews import find_ratings
from ownchat.data.files import UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.records import Record


class Plain(Protocol):
    """Columns that were understood."""

    def rows(
        self, values: Mapping[str, str], *, file: str, format: str, line: int, offset: int | None = None
    ) -> Iterable[Record | Entry]:
        """What one row makes; its fate may also come later, in :meth:`rest`."""

    def rest(self) -> Iterable[Record | Entry]:
        """What is still held after the last row."""

    def texts(self) -> Sequence[str]:
        """The columns whose text is taken."""

    def understood(self, names: Sequence[str]) -> str:
        """For people: what each column is, and which are not used."""

    def named(self) -> dict[str, str]:
        """``{"question": "q", "answer": "a"}``."""


@dataclass(frozen=True)
class Table:
    """Questions with answers, or documents: each row makes one record."""

    columns: Columns

    def rows(
        self, values: Mapping[str, str], *, file: str, format: str, line: int, offset: int | None = None
    ) -> Iterable[Record | Entry]:
        return (self.columns.row(values, file=file, format=format, line=line, offset=offset),)

    def rest(self) -> Iterable[Record | Entry]:
        return ()

    def texts(self) -> Sequence[str]:
        return (*self.columns.question, self.columns.answer, self.columns.system, self.columns.text)

    def understood(self, names: Sequence[str]) -> str:
        return self.columns.understood(names)

    def named(self) -> dict[str, str]:
        return self.columns.named()


def understand(
    names: Sequence[str],
    sample: Sequence[Mapping[str, str]],
    data: DataConfig,
    *,
    where: str,
    text_is_document: bool = False,
    all_rows: Iterable[Mapping[str, str]] = (),
) -> Plain:
    """Understand a table from its names and first rows: columns that say what they are, then ratings, then labels.

    ``all_rows`` is read once where the range of ratings or the list of labels is needed. Raises what
    :func:`ownchat.data.columns.choose` raises.
    """
    problem: UnreadableFile | None = None
    columns: Columns | None = None
    try:
        columns = choose(names, sample, data.map, where=where, text_is_document=text_is_document)
    except UnreadableFile as error:
        problem = error
    told = data.map.keys() & {"review", "rating", "product"}
    if told or not data.map.keys() - {"group"}:
        certain = columns if columns is not None and columns.answer and not columns.by_content else None
        if (rated := find_ratings(names, sample, certain, data, all_rows)) is not None:
            return rated
        if told:
            fix = "say which is which: --map review=COLUMN --map rating=COLUMN"
            raise UnreadableFile("no column can be a review with its rating", where=where, fix=fix)
        is_open = columns is None or bool(columns.text)
        if is_open and (labelled := find_labels(names, sample, data, all_rows)) is not None:
            return labelled
    if problem is not None:
        raise problem
    assert columns is not None
    return Table(columns)
