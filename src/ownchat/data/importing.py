"""One task read into shards and books: every file and every row of it gets its fate, whatever is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ownchat.config import DataConfig
from ownchat.data.files import InputFile, UnreadableFile, open_file
from ownchat.data.given import columns_only, given_split, with_split
from ownchat.data.ledger import Entry, Ledger, Unit
from ownchat.data.plan import Task, as_data_error
from ownchat.data.readers import FORMATS
from ownchat.data.reading import Reading, row_id
from ownchat.data.records import Record, ShardWriter, batched, message
from ownchat.data.remote import size_of
from ownchat.errors import DataError, LedgerError


@dataclass
class Outcome:
    """What became of a task: a description for the report, what to tell the user, and the first problem, if any."""

    files: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problem: dict[str, str] | None = None  # what, where, fix

    def warn(self, error: DataError) -> None:
        self.warnings.append(f"not read: {error}")
        self.note(error)

    def note(self, error: DataError) -> None:
        self.problem = self.problem or {"what": error.what, "where": error.where, "fix": error.fix}


def import_task(
    task: Task, data: DataConfig, ledger: Ledger, writer: ShardWriter, on_bytes: Callable[[int], None]
) -> Outcome:
    """Read a task's files into shards and ledger. Damage and wrong forms become entries and warnings, never errors."""
    outcome = Outcome()
    files: list[InputFile] = []
    for path, name in task.files:
        try:
            opened = open_file(path, name)
            if len(task.files) > 1:
                opened = opened.without_sample()  # of thousands of mails: memory
            files.append(replace(opened, on_bytes=_up_to(size_of(path), on_bytes), room=writer.directory))
        except UnreadableFile as error:
            _unreadable(name, error, ledger, outcome)
    if files:
        format = FORMATS[task.format]
        label = files[0].name if len(task.files) == 1 else f"{_common(files)} ({len(files):,} files)"
        try:
            told = columns_only(data)
            reading = format.together(files, told) if format.together else format.read(files[0], told)
        except Exception as error:  # a reader's library may raise anything on damaged input
            for file in files:
                _unreadable(file.name, as_data_error(error, file.name), ledger, outcome)
            return outcome
        _import_reading(reading, files, label, task, data, ledger, writer, outcome)
    return outcome


def with_system(items: Iterator[Record | Entry], system: str | None) -> Iterator[tuple[Record | Entry, bool]]:
    """Rows, with the system message put before conversations that have none (their ids stay), and whether it was."""
    for item in items:
        add = (
            bool(system)
            and not isinstance(item, Entry)
            and item["kind"] == "conversation"
            and all(turn["role"] != "system" for turn in item["messages"])
        )
        if add:
            assert not isinstance(item, Entry)
            item["messages"] = [message("system", str(system)), *item["messages"]]
        yield item, add


def guarded(reading: Reading, name: str) -> Iterator[Record | Entry]:
    """A reading's rows; what goes wrong on the way is a last entry: the rest of the file is unreadable."""
    last = 0
    try:
        for item in reading.rows:
            if not isinstance(item, Entry):
                last = item["source"]["line"]
            yield item
    except Exception as error:  # as above
        problem = as_data_error(error, name)
        id, place = row_id(name, -1), f"{name}, after line {last}: {problem.what}"
        yield Entry("row", id, "unreadable", "the rest of the file", parents=(name,), detail=place)


# ----------------------------------------------------------------------------------------------------------------


def _import_reading(
    reading: Reading,
    files: list[InputFile],
    label: str,
    task: Task,
    data: DataConfig,
    ledger: Ledger,
    writer: ShardWriter,
    outcome: Outcome,
) -> None:
    counter = _Counter(ledger, reading.parent)
    rows = with_split(with_system(guarded(reading, label), data.system), data)
    for batch in batched(counter.records(rows)):
        writer.write(batch)
        ids, names = batch.column("id").to_pylist(), batch.column("source").field("file").to_pylist()
        for id, name in zip(ids, names, strict=True):
            ledger.fate("row", id, "kept", "import", parents=(reading.parent or name,))
    for unit, count in reading.entered.items():
        ledger.enter(cast(Unit, unit), count)
    held = sorted({given_split(file.name, data) for file in files} - {""})
    for file in files:
        ledger.fate("file", file.name, "kept", f"read as {reading.format}", detail=reading.understood)
        for note in file.decoding.notes:
            ledger.event("file", file.name, "changed", note)
        if split := given_split(file.name, data):
            ledger.event("file", file.name, "changed", f"given as {split}")
    if counter.with_system:
        ledger.event("row", label, "changed", "system prompt added", count=counter.with_system)
    if counter.unreadable:
        count, first = counter.unreadable, counter.first_unreadable
        what = f"{count:,} rows are unreadable, the first" if count > 1 else "a row is unreadable"
        outcome.warnings.append(f"{what}: {first} (the others were read)")
        outcome.note(DataError(f"no row can be used; {first}", where=label, fix="correct the file"))
    if counter.made == 0 and not reading.aside:
        problem = _no_record(label, counter.first_dropped, counter.first_unreadable)
        outcome.problem = None
        outcome.note(problem)
        outcome.warnings.append(str(problem))
    outcome.files.append(
        {
            "file": label,
            "format": reading.format,
            "confidence": task.confidence,
            "encoding": files[0].encoding if not files[0].magic else None,
            "columns": reading.columns,
            "understood as": reading.understood,
            "notes": [*reading.notes, *(f"held out: it is {split} data" for split in held)],
            "rows": counter.rows,
            "records": counter.made,
            "messages": counter.messages,
        }
    )


class _Counter:
    """Passes records on, and enters rows and entries into the books."""

    def __init__(self, ledger: Ledger, parent: str) -> None:
        self.ledger, self.parent = ledger, parent
        self.rows = self.made = self.messages = self.with_system = self.unreadable = 0
        self.first_dropped: Entry | None = None
        self.first_unreadable = ""

    def records(self, rows: Iterator[tuple[Record | Entry, bool]]) -> Iterator[Record]:
        pieces = 0  # that splits announce: they enter through the split, all other records here
        for item, added in rows:
            if not isinstance(item, Entry):
                self.rows += 1
                self.made += 1
                self.messages += len(item["messages"] or ())
                self.with_system += added
                yield item
                continue
            if item.unit == "row" and item.fate not in ("changed", "cut"):
                self.rows += 1
                self.ledger.enter("row")
                pieces += item.makes
            if item.fate == "dropped" and self.first_dropped is None:
                self.first_dropped = item
            if item.fate == "unreadable":
                self.unreadable += 1
                self.first_unreadable = self.first_unreadable or item.detail
            self.ledger.add([item])
        if pieces > self.made or (self.parent and pieces < self.made):
            raise LedgerError(f"a split announced {pieces} pieces, there are {self.made}")
        self.ledger.enter("row", self.made - pieces)


def _unreadable(name: str, error: DataError, ledger: Ledger, outcome: Outcome) -> None:
    ledger.fate("file", name, "unreadable", "unreadable file", detail=error.what)
    outcome.warn(error)
    outcome.files.append({"file": name, "format": None, "understood as": f"not read: {error.what}", "records": 0})


def _no_record(name: str, first: Entry | None, unreadable: str) -> DataError:
    if first is None and unreadable:
        return DataError(f"no row can be used: {unreadable}", where=name, fix="correct the file, or remove it")
    if first is None:
        return DataError("the file has no rows", where=name, fix="put at least one row under the header")
    place = first.detail.rpartition(", ")[2] or "line 1"
    fixes = {
        "no answer": "fill the answer's column, or say which one it is: --map answer=COLUMN",
        "no question": "fill the question's column, or say which one it is: --map question=COLUMN",
        "no assistant turn": 'add a message with "role": "assistant": it is what the model learns',
        "no trained turn": 'give at least one assistant message "weight": 1',
        "nobody answers": "say who the assistant is: --assistant NAME",
    }
    return DataError(
        f"no row can be used; the first is {place}: {first.rule}", where=name, fix=fixes.get(first.rule, "")
    )  # fmt: skip


def _common(files: list[InputFile]) -> str:
    """The folder that all files stand in, or a name for their kind."""
    first, last = min(file.name for file in files), max(file.name for file in files)
    shared = first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
    return shared.rpartition("/")[0] or "all"


def _up_to(size: int, on_bytes: Callable[[int], None]) -> Callable[[int], None]:
    """Report bytes read, at most the file's size: a reader may look at the beginning twice."""
    seen = 0

    def report(count: int) -> None:
        nonlocal seen
        count = min(count, size - seen)
        seen += count
        if count:
            on_bytes(count)

    return report
