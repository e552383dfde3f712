"""The ledger: every unit that enters a stage has exactly one fate, and the totals add up.

Units are files, rows (records), messages and tokens. Invariant, per stage and unit:

    in = kept + dropped + unreadable + split + merged

What a split or merge makes enters as new units. "changed" and "cut" are event rows beside the fate. Ids link the
stages, so that a trained token leads back to its file and line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ownchat.errors import LedgerError

Unit = Literal["file", "row", "message", "token"]
Fate = Literal["kept", "dropped", "unreadable", "split", "merged"]
Event = Literal["changed", "cut"]

FATES: tuple[Fate, ...] = ("kept", "dropped", "unreadable", "split", "merged")
NAME = "ledger.parquet"

SCHEMA = pa.schema(
    [
        ("unit", pa.string()),
        ("id", pa.string()),
        ("parent_ids", pa.list_(pa.string())),  # the units of the stage before, or what was split or merged
        ("fate", pa.string()),  # a fate, or an event
        ("rule", pa.string()),  # which step decided
        ("count", pa.int64()),  # units this row speaks for: tokens of a record, messages of a conversation
        ("detail", pa.string()),
    ]
)

Totals = dict[str, dict[str, int]]  # {"row": {"in": 503, "kept": 503, "dropped": 0, ...}, ...}


@dataclass(frozen=True)
class Entry:
    """A row of the ledger that is not written yet: what a pure step hands back beside its batch."""

    unit: Unit
    id: str
    fate: Fate | Event
    rule: str
    count: int = 1
    parents: tuple[str, ...] = ()
    detail: str = ""
    makes: int = 0  # units that a split or merge brings in


class Ledger:
    """The books of one stage, streamed to ``ledger.parquet``; use as a context manager.

    :meth:`enter` counts what comes in, independently of :meth:`fate`; leaving the block checks that they balance
    and raises :class:`~ownchat.errors.LedgerError` if they do not.

    >>> import tempfile
    >>> with Ledger(Path(tempfile.mkdtemp())) as ledger:
    ...     ledger.enter("row", 2)
    ...     ledger.fate("row", "a", "kept", "import")
    ...     ledger.fate("row", "b", "dropped", "empty", detail="line 7")
    >>> ledger.totals["row"]["in"], ledger.totals["row"]["kept"], ledger.totals["row"]["dropped"]
    (2, 1, 1)
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(directory / NAME, SCHEMA, compression="zstd")
        self._held: list[tuple[str, str, list[str], str, str, int, str]] = []
        self._entered: Counter[str] = Counter()
        self._fates: Counter[tuple[str, str]] = Counter()
        self._rules: Counter[tuple[str, str, str]] = Counter()

    def enter(self, unit: Unit, count: int = 1) -> None:
        """``count`` units came into the stage."""
        self._entered[unit] += count

    def fate(
        self,
        unit: Unit,
        id: str,
        fate: Fate,
        rule: str,
        *,
        count: int = 1,
        parents: Sequence[str] = (),
        detail: str = "",
        makes: int = 0,
    ) -> None:
        """The one terminal fate of ``count`` units; ``makes``: new units that a split or merge brings in."""
        if fate not in FATES:
            raise LedgerError(f"no such fate: {fate}")
        if count == 0:
            return
        self._fates[unit, fate] += count
        self._entered[unit] += makes
        self._append(unit, id, fate, rule, count, parents, detail)

    def event(self, unit: Unit, id: str, event: Event, rule: str, *, count: int = 1, detail: str = "") -> None:
        """Something happened to units that have, or will have, their fate elsewhere."""
        self._append(unit, id, event, rule, count, (), detail)

    def add(self, entries: Iterable[Entry]) -> None:
        """Write entries that steps and readers handed back."""
        for e in entries:
            if e.fate in FATES:
                self.fate(
                    e.unit, e.id, e.fate, e.rule, count=e.count, parents=e.parents, detail=e.detail, makes=e.makes
                )
            else:
                self.event(e.unit, e.id, cast(Event, e.fate), e.rule, count=e.count, detail=e.detail)

    def books(self) -> dict[str, list[list[Any]]]:
        """The counters as plain lists, for :meth:`absorb` in another process."""
        counters: dict[str, Counter] = {"entered": self._entered, "fates": self._fates, "rules": self._rules}
        return {name: [[key, count] for key, count in counter.items()] for name, counter in counters.items()}

    def absorb(self, directory: Path, books: dict[str, list[list[Any]]]) -> None:
        """Take over the rows and counts of a ledger that another process wrote; what entered as a file is left out."""
        self._entered.update({unit: count for unit, count in books["entered"] if unit != "file"})
        self._fates.update({(unit, fate): count for (unit, fate), count in books["fates"]})
        self._rules.update({(unit, fate, rule): count for (unit, fate, rule), count in books["rules"]})
        self._flush()
        with pq.ParquetFile(directory / NAME) as file:
            for batch in file.iter_batches():
                self._writer.write_batch(batch)

    @property
    def totals(self) -> Totals:
        """``{unit: {"in": n, fate: n, ...}}`` for every unit seen."""
        units = dict.fromkeys([*self._entered, *(unit for unit, _ in self._fates)])
        return {unit: {"in": self._entered[unit]} | {fate: self._fates[unit, fate] for fate in FATES} for unit in units}

    @property
    def rules(self) -> dict[str, dict[str, int]]:
        """``{"row dropped": {"exact_duplicate": 3}}``: what each rule did, events included."""
        table: dict[str, dict[str, int]] = {}
        for (unit, fate, rule), count in sorted(self._rules.items()):
            table.setdefault(f"{unit} {fate}", {})[rule] = count
        return table

    def check(self) -> None:
        """Raise :class:`~ownchat.errors.LedgerError` unless everything that came in has a fate."""
        for unit, total in self.totals.items():
            accounted = sum(total[fate] for fate in FATES)
            if accounted != total["in"]:
                raise LedgerError(f"{unit}: {total['in']} in, {accounted} accounted for: {total}")

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None:
            self.check()

    def _append(
        self, unit: str, id: str, fate: str, rule: str, count: int, parents: Sequence[str], detail: str
    ) -> None:
        self._rules[unit, fate, rule] += count
        self._held.append((unit, id, list(parents), fate, rule, count, detail))
        if len(self._held) >= 50_000:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            columns = list(zip(*self._held, strict=True))
            arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
            self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
            self._held = []


def read_ledger(directory: Path) -> pa.Table:
    """The ledger of a stage as a table."""
    return pq.read_table(directory / NAME)


def lineage(id: str, stages: Sequence[Path]) -> list[dict[str, object]]:
    """What happened to a unit, from the last of ``stages`` (in pipeline order) back to its file and line.

    Each row is a ledger row with the name of its stage; ``parent_ids`` are followed.
    """
    wanted, rows = {id}, []
    for stage in reversed(stages):
        table = read_ledger(stage).to_pylist()
        before = -1
        while before != len(wanted):  # a split inside the stage: the piece leads to its parent, found in the same table
            before = len(wanted)
            wanted |= {parent for row in table if row["id"] in wanted for parent in row["parent_ids"]}
        rows += [{"stage": stage.name, **row} for row in table if row["id"] in wanted]
    return rows
