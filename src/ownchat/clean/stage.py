"""Stage 2: records are mended, copies and empty ones taken out, the rest dealt out to three splits.

Two passes. The first runs the steps of :mod:`ownchat.clean.steps` on each batch and keeps a few hashes of every
record; from these alone duplicates and splits are decided; the second writes. Memory is bounded by one batch, about a
hundred bytes a record, and the few long documents that are cut.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ownchat import artifacts
from ownchat.artifacts import SPLITS, Report
from ownchat.clean.sections import FEW_DOCUMENTS, LONG_DOCUMENT, paragraphs, sections, sentences, stretches
from ownchat.clean.signatures import Signatures, concatenate, signatures
from ownchat.clean.split import TEST, VALID, assign, components, connected, first_copies
from ownchat.clean.steps import STEPS, count_messages
from ownchat.config import CleanConfig, Config
from ownchat.data.ledger import Entry, Ledger
from ownchat.data.records import SCHEMA, Record, ShardWriter, read_batches, shards
from ownchat.errors import DataError
from ownchat.monitor.progress import progress

SECTIONS = ("clean",)
EXAMPLES = 3  # dropped records of each rule that the report shows


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> Report:
    """Clean and split the records of ``inputs["data"]`` into ``{train,valid,test,dropped}/``.

    The ledger has units ``row`` and ``message``; a kept row's rule is the name of its split. Raises
    :class:`~ownchat.errors.DataError` when no record is left, or too few for three splits.
    """
    key = artifacts.stage_key(config, SECTIONS, inputs)
    if (report := artifacts.completed(output, key)) is not None:
        return report
    start, source, work = artifacts.start_afresh(output), inputs["data"], output / ".work"
    num_rows = sum(pq.read_metadata(path).num_rows for path in shards(source))
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(output))
        dropped = _Dropped(stack.enter_context(ShardWriter(output / "dropped")))
        advance = stack.enter_context(progress("clean", 2 * num_rows, "records"))
        with ShardWriter(work) as writer:
            parts = []
            for batch in read_batches(source):
                kept = _clean(batch, config.clean, ledger, dropped)
                parts.append(signatures(kept))
                writer.write(kept)
                advance(len(batch))
        hashes = concatenate(parts) if writer.rows else None
        if hashes is None:
            raise _all_dropped(ledger)
        plan = _plan(hashes, config.clean, lambda: read_batches(work))
        writers = [stack.enter_context(ShardWriter(output / name)) for name in SPLITS]
        _write(plan, hashes, read_batches(work), ledger, dropped, writers, advance)
    shutil.rmtree(work)
    sizes = {name: writer.rows for name, writer in zip(SPLITS, writers, strict=True)}
    details = {
        "ledger": ledger.totals,
        "rules": ledger.rules,
        "splits": {
            name: {"records": sizes[name], "groups": plan.groups[split]} for split, name in enumerate(SPLITS)
        },
        "groups": sum(plan.groups),
        "dropped": dropped.examples,
    }  # fmt: skip
    report = Report(
        "clean", output, {"records": num_rows, **sizes, "dropped": dropped.rows}, details, time.monotonic() - start
    )  # fmt: skip
    return artifacts.commit(key, config, SECTIONS, report)


# ---------------------------------------------------------------------------------------------------- first pass


class _Dropped:
    """Dropped records are kept in shards of their own, and a few of each rule are shown."""

    def __init__(self, writer: ShardWriter) -> None:
        self._writer, self.examples = writer, list[dict[str, Any]]()
        self._shown: dict[str, int] = {}
        self.rows = 0

    def add(self, batch: pa.RecordBatch, rules: list[str]) -> None:
        """Keep a batch of dropped records; ``rules`` has one name for each."""
        self._writer.write(batch)
        self.rows += len(batch)
        for index, rule in enumerate(rules):
            if self._shown.get(rule, 0) < EXAMPLES:
                self._shown[rule] = self._shown.get(rule, 0) + 1
                row = batch.slice(index, 1).to_pylist()[0]
                text = row["text"] or " / ".join(turn["content"] or "" for turn in row["messages"] or ())
                source = {"file": row["source"]["file"], "line": row["source"]["line"]}
                self.examples.append({"rule": rule, "id": row["id"], **source, "text": " ".join(text.split())[:160]})


def _clean(batch: pa.RecordBatch, config: CleanConfig, ledger: Ledger, dropped: _Dropped) -> pa.RecordBatch:
    """Run the steps; what they drop goes to the books and to ``dropped``."""
    ledger.enter("row", len(batch))
    ledger.enter("message", int(count_messages(batch).sum()))
    for step, is_on in STEPS:
        if not is_on(config):
            continue
        before = batch
        batch, entries = step(batch)
        ledger.add(entries)
        rules = {entry.id: entry.rule for entry in entries if entry.unit == "row" and entry.fate == "dropped"}
        if rules:
            gone = before.filter(pc.is_in(before.column("id"), pa.array(list(rules))))
            dropped.add(gone, [rules[id] for id in gone.column("id").to_pylist()])
    return batch


def _all_dropped(ledger: Ledger) -> DataError:
    rules = ledger.rules.get("row dropped", {})
    listed = ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items(), key=lambda item: -item[1]))
    total = sum(rules.values())
    return DataError(f"all {total} records were dropped: {listed}", fix="look at the files, or switch the rule off")


# -------------------------------------------------------------------------------------------------------- deciding


@dataclass(frozen=True)
class _Plan:
    """What becomes of each record of the first pass."""

    copy_of: np.ndarray  # (n,) index of the record that it is a copy of, else its own
    splits: np.ndarray  # (n,) 0 train, 1 valid, 2 test; -1: copied or cut
    cut: dict[int, list[tuple[int, Record]]]  # documents that become sections
    groups: tuple[int, int, int]  # components in each split; a section counts as one


def _plan(hashes: Signatures, config: CleanConfig, batches: Callable[[], Iterator[pa.RecordBatch]]) -> _Plan:
    copy_of = first_copies(hashes.content) if config.exact_duplicates else np.arange(len(hashes))
    kept = np.flatnonzero(copy_of == np.arange(len(hashes)))
    # A dropped copy still links: its customer's other rows must not stand in another split than the row it equals.
    linked = connected([hashes.group, first_copies(hashes.content) + 1])[kept] + 1
    labels = connected([components(hashes.take(kept)) + 1, linked])
    alone = kept[(hashes.is_document & (hashes.group == 0))[kept] & (np.bincount(labels)[labels] == 1)]
    cut: dict[int, list[tuple[int, Record]]] = {}
    if 0 < len(alone) < FEW_DOCUMENTS:
        cut = _cut_documents(_rows_at(batches(), alone), config, others=len(np.unique(labels)))
    rest = ~np.isin(kept, list(cut))
    splits = np.full(len(hashes), -1)
    if rest.any():
        splits[kept[rest]] = assign(
            labels[rest], hashes.ids[kept[rest]], valid_share=config.valid_share, test_share=config.test_share,
            seed=config.seed, needed=() if cut and len(np.unique(labels[rest])) < len(SPLITS) else (VALID, TEST),
        )  # fmt: skip
    pairs = np.unique(np.stack([splits[kept[rest]], labels[rest]]), axis=1)[0]
    made = [split for sections in cut.values() for split, _ in sections]
    train, valid, test = (int((pairs == split).sum()) + made.count(split) for split in range(3))
    return _Plan(copy_of, splits, cut, (train, valid, test))


def _cut_documents(
    documents: dict[int, Record], config: CleanConfig, *, others: int
) -> dict[int, list[tuple[int, Record]]]:
    """Sections of the long documents; of short ones too, when without them there were fewer than three groups."""
    cut = {}
    for least, cutter in ((LONG_DOCUMENT, paragraphs), (3, paragraphs), (3, sentences)):
        for index, row in documents.items():
            pieces = cutter(row["text"])
            if len(pieces) >= least:
                splits = stretches(
                    pieces, row["id"], valid_share=config.valid_share, test_share=config.test_share, seed=config.seed
                )  # fmt: skip
                cut[index] = sections(row, pieces, splits)
        if cut or others >= len(SPLITS):
            break
    return cut


def _rows_at(batches: Iterator[pa.RecordBatch], indices: np.ndarray) -> dict[int, Record]:
    rows, start = {}, 0
    for batch in batches:
        for index in indices[(indices >= start) & (indices < start + len(batch))].tolist():
            rows[index] = batch.slice(index - start, 1).to_pylist()[0]
        start += len(batch)
    return rows


# ---------------------------------------------------------------------------------------------------- second pass


def _write(
    plan: _Plan,
    hashes: Signatures,
    batches: Iterator[pa.RecordBatch],
    ledger: Ledger,
    dropped: _Dropped,
    writers: list[ShardWriter],
    advance: Callable[..., None],
) -> None:
    start = 0
    for batch in batches:
        indices = np.arange(start, start + len(batch))
        start += len(batch)
        splits, copy_of = plan.splits[indices], plan.copy_of[indices]
        for split, name in enumerate(SPLITS):
            writers[split].write(batch.filter(pa.array(splits == split)))
            for index in indices[splits == split].tolist():
                _fate(ledger, hashes, index, "kept", name, hashes.ids[index].decode())
        for index in (index for index in indices.tolist() if index in plan.cut):
            for split, row in plan.cut[index]:
                writers[split].write(pa.RecordBatch.from_pylist([row], schema=SCHEMA))
            ledger.add(_cut_entries(hashes.ids[index].decode(), plan.cut[index]))
        copies = copy_of != indices
        if copies.any():
            dropped.add(batch.filter(pa.array(copies)), ["exact duplicate"] * int(copies.sum()))
        for index in indices[copies].tolist():
            _fate(ledger, hashes, index, "dropped", "exact duplicate", hashes.ids[plan.copy_of[index]].decode())
        advance(len(batch))


def _fate(ledger: Ledger, hashes: Signatures, index: int, fate: Any, rule: str, parent: str) -> None:
    """The fate of a record and of its messages."""
    id = hashes.ids[index].decode()
    ledger.fate("row", id, fate, rule, parents=(parent,))
    ledger.fate("message", id, fate, rule, count=int(hashes.messages[index]), parents=(parent,))


def _cut_entries(parent: str, made: list[tuple[int, Record]]) -> Iterator[Entry]:
    yield Entry("row", parent, "split", "sections", parents=(parent,), makes=len(made))
    for split, row in made:
        yield Entry("row", row["id"], "kept", SPLITS[split], parents=(parent,))
