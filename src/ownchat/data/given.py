"""Files that their owner calls validation or test data: ``data.map`` with ``valid`` or ``test``, and a pattern.

Their records get a tag, by which the split of :mod:`ownchat.clean.given` goes. Nothing is guessed: a file that is
called ``valid.jsonl`` is a file like any other until its owner says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatch

from ownchat.config import DataConfig
from ownchat.data.ledger import Entry
from ownchat.data.records import Record
from ownchat.errors import DataError

TAGS = {"valid": "given as valid", "test": "given as test"}  # by the part of data.map, which is the split's name


def columns_only(data: DataConfig) -> DataConfig:
    """The settings as readers know them: what ``data.map`` says of columns."""
    if not TAGS.keys() & data.map.keys():
        return data
    return data.model_copy(update={"map": {part: name for part, name in data.map.items() if part not in TAGS}})


def given_split(file: str, data: DataConfig) -> str:
    """``"valid"``, ``"test"``, or empty for a file that nothing is said of. Patterns are of names or whole paths.

    >>> given_split("faq/valid.jsonl", DataConfig(map={"valid": "valid.*"}))
    'valid'
    """
    for split in TAGS:
        if (pattern := data.map.get(split)) and (fnmatch(file, pattern) or fnmatch(file.rpartition("/")[2], pattern)):
            return split
    return ""


def given_tags(row: Record) -> list[str]:
    """The tag of a record, for what is made of it: questions about a document that is held out are held out."""
    return [tag for tag in row["tags"] or () if tag in TAGS.values()]


def check_given(files: Iterable[str], data: DataConfig) -> None:
    """Raise :class:`~ownchat.errors.DataError` for a pattern that no file has, and where all files are held out."""
    if not TAGS.keys() & data.map.keys():
        return
    names = list(files)
    found = {given_split(name, data) for name in names}
    for split in TAGS.keys() & data.map.keys() - found:
        raise DataError(
            f'no file that is read is called "{data.map[split]}", which is to be the {split} split',
            where="data.map", fix=f"write the file's name, or a pattern: --map {split}='*valid*.jsonl'",
        )  # fmt: skip
    if "" not in found:
        raise DataError(
            "all files are given as valid or test: nothing is left to learn", where="data.map",
            fix="name the files that are to be held out, and no others",
        )  # fmt: skip


def with_split(items: Iterator[tuple[Record | Entry, bool]], data: DataConfig) -> Iterator[tuple[Record | Entry, bool]]:
    """Rows, those of given files with their tag; what stands beside each row is passed on."""
    if not TAGS.keys() & data.map.keys():
        yield from items
        return
    for item, beside in items:
        if not isinstance(item, Entry) and (split := given_split(item["source"]["file"], data)):
            item["tags"] = [*(item["tags"] or ()), TAGS[split]]
        yield item, beside
