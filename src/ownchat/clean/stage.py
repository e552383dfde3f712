"""Stage 2: records are mended, copies and empty ones taken out, the rest dealt out to three splits.

Two passes. The first (:mod:`ownchat.clean.shards`) runs the steps on each shard and keeps hashes of every record; from
these duplicates and splits are decided; the second writes. Memory is bounded by some megabytes of text in each process,
about a hundred bytes a record, and the few long documents that are cut. A run that was killed goes on: the shards of
the first pass that are done stay done.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ownchat import artifacts
from ownchat.artifacts import SPLITS, Report
from ownchat.clean.batches import count_messages, with_tag
from ownchat.clean.cluster import connect
from ownchat.clean.contradictions import RULE as CONTRADICTION
from ownchat.clean.contradictions import TAG as CONTRADICTORY
from ownchat.clean.contradictions import Found, find_contradictions, settle
from ownchat.clean.decontaminate import Examination, contaminated, read_examination
from ownchat.clean.given import RULE as ELSEWHERE
from ownchat.clean.given import copies_across, deal_given, first_of_training, given_splits, ranks_of
from ownchat.clean.leaks import count_leaks
from ownchat.clean.mentions import MentionCounts
from ownchat.clean.near import Near, find_near
from ownchat.clean.recipe import result_key
from ownchat.clean.sections import FEW_DOCUMENTS, LONG_DOCUMENT, paragraphs, sections, sentences, stretches
from ownchat.clean.shards import DONE, FORMS, FOUND, HASHES, TOPIC, Dropped, find_forms, find_topic, first_pass, learn
from ownchat.clean.signatures import Order, Signatures, concatenate, in_order
from ownchat.clean.sketches import LAYOUT, Sketches
from ownchat.clean.split import TEST, TRAIN, VALID, components, connected, deal, first_copies, way_out, what_dropped
from ownchat.clean.steps import needs_learning
from ownchat.clean.trimming import without_replies
from ownchat.config import CleanConfig, Config
from ownchat.data.ledger import Entry, Fate, Ledger
from ownchat.data.records import SCHEMA, Record, ShardWriter, read_batches, shards
from ownchat.errors import DataError
from ownchat.monitor.progress import progress

SECTIONS = ("clean",)
WORK, KEY = ".work", "key"
_NEAR, _NEAR_GIVEN = "near.npz", "near-given.npz"
_EXAMPLES = 5  # near duplicates that the report shows beside what was kept


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> Report:
    """Clean and split the records of ``inputs["data"]`` into ``{train,valid,test,dropped}/``.

    The ledger has units ``row`` and ``message``; a kept row's rule is the name of its split. Raises
    :class:`~ownchat.errors.DataError` when no record is left, too few for three splits, or a file to decontaminate
    against cannot be read.
    """
    key = result_key(config, inputs["data"])
    if (report := artifacts.completed(output, key)) is not None:
        return report
    start, paths, work = time.monotonic(), shards(inputs["data"]), _resume(output, key)
    num_rows = sum(pq.read_metadata(path).num_rows for path in paths)
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(output))
        dropped = Dropped(stack.enter_context(ShardWriter(output / "dropped")))
        advance = stack.enter_context(progress("clean", 2 * num_rows, "records"))
        examination = _examination(config, work) if config.clean.decontaminate else None
        cluster = stack.enter_context(connect(config.data.workers)) if config.data.engine == "ray" else None
        order = cluster.order if cluster else in_order
        if needs_learning(config.clean):
            (cluster.learn if cluster else learn)(paths, work / "learned.npz")
        if not (work / FORMS).exists():
            find_forms(paths, work / FORMS)
        if config.clean.off_topic != "off" and not (work / TOPIC).exists():
            find_topic(paths, work / TOPIC, config.clean.topic)
        folders = []
        elsewhere = cluster.clean if cluster else None
        for folder in first_pass(paths, work, config.clean, config.data.workers, advance, elsewhere):
            _take_books(folder, ledger, dropped)
            if (folder / HASHES).exists():
                folders.append(folder)
        if not folders:
            raise _all_dropped(ledger)
        hashes = concatenate(Signatures.load(folder / HASHES) for folder in folders)
        sketches = stack.enter_context(Sketches(folders))
        steps_dropped = ledger.rules.get("row dropped", {})
        plan = _plan(hashes, sketches, folders, examination, config.clean, work, order, steps_dropped)
        writers = [stack.enter_context(ShardWriter(output / name)) for name in SPLITS]
        mentions = MentionCounts() if config.clean.mention_counts else None
        _write(plan, hashes, _batches(folders), ledger, dropped, writers, advance, mentions)
        leaks = _leaks(plan, hashes, sketches)
    sizes = {name: writer.rows for name, writer in zip(SPLITS, writers, strict=True)}
    details = {
        "ledger": ledger.totals,
        "rules": ledger.rules,
        "splits": {
            name: {"records": sizes[name], "groups": plan.groups[split]} for split, name in enumerate(SPLITS)
        },
        "groups": sum(plan.groups),
        "largest_group": plan.largest,
        "stock_replies": len(plan.stock),
        "leaks": leaks,
        "near_duplicates": plan.examples,
        "contradictions": plan.contradictions,
        "mentions": mentions.by_source if mentions else {},
        "examination": examination.files if examination else [],
        "dropped": dropped.examples,
    }  # fmt: skip
    report = Report(
        "clean", output, {"records": num_rows, **sizes, "dropped": dropped.writer.rows}, details,
        time.monotonic() - start,
    )  # fmt: skip
    shutil.rmtree(work)
    return artifacts.commit(key, config, SECTIONS, report)


# ---------------------------------------------------------------------------------------------------- first pass


def _resume(output: Path, key: str) -> Path:
    """The folder of the first pass: what a killed run left there, when it was made from the same; else empty."""
    work, key = output / WORK, f"{key} {LAYOUT}"
    if not (work / KEY).is_file() or (work / KEY).read_text() != key:
        artifacts.start_afresh(output)
        artifacts.write_atomic(work / KEY, key)
    for path in output.iterdir():
        if path != work:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return work


def _examination(config: Config, work: Path) -> Examination:
    folder = work / "examination"
    if not (folder / "names.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        read_examination(config.clean.decontaminate, config, folder).save(folder)
    return Examination.load(folder)


def _take_books(folder: Path, ledger: Ledger, dropped: Dropped) -> None:
    """What the steps did to one shard, and what they dropped."""
    done = json.loads((folder / DONE).read_text())
    ledger.absorb(folder, done["books"])
    for batch in read_batches(folder / "dropped"):
        dropped.writer.write(batch)
    for example in done["examples"]:
        dropped.show(example)


def _batches(folders: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for folder in folders:
        yield from read_batches(folder)


def _all_dropped(ledger: Ledger) -> DataError:
    rules = ledger.rules.get("row dropped", {})
    return DataError(f"all {sum(rules.values())} records were dropped: {what_dropped(rules)}", fix=way_out(rules))


# -------------------------------------------------------------------------------------------------------- deciding


@dataclass(frozen=True)
class _Plan:
    """What becomes of each record of the first pass."""

    lost: dict[int, tuple[str, str, str]]  # record -> rule, parent, detail
    splits: np.ndarray  # (n,) 0 train, 1 valid, 2 test; -1: lost or cut
    cut: dict[int, list[tuple[int, Record]]]  # documents that become sections
    groups: tuple[int, int, int]  # components in each split; a section counts as one
    largest: int  # records in the largest component
    stock: np.ndarray  # keys of replies that valid and test must not keep
    examples: list[dict[str, Any]]  # near duplicates beside what is kept
    tagged: dict[int, str]  # records that contradict another one -> what they disagree on
    contradictions: dict[str, Any]  # how many, and a few with both texts


def _plan(
    hashes: Signatures,
    sketches: Sketches,
    folders: Sequence[Path],
    examination: Examination | None,
    config: CleanConfig,
    work: Path,
    order: Order,
    dropped: Mapping[str, int],
) -> _Plan:
    everyone, ids, given = np.arange(len(hashes)), hashes.ids, given_splits(folders)
    lost: dict[int, tuple[str, str, str]] = {}
    if examination is not None:
        for index, run in contaminated(*_found(folders), len(hashes)).items():
            place = examination.names[examination.places[run]]
            lost[index] = ("contaminated", ids[index].decode(), f"text of {place}")
    clear = first_of_training(given, np.setdiff1d(everyone, np.fromiter(lost, np.int64)))
    copy_of = everyone.copy()
    copy_of[clear] = clear[first_copies(hashes.content[clear], order)]
    first = np.sort(clear[copy_of[clear] == clear])
    # Of preferences it matters which answer was chosen: only equal ones are dropped.
    near = _near(sketches, first, ~hashes.is_preference, work, order, given, all_stay=not config.near_duplicates)
    if config.exact_duplicates:
        lost |= {i: ("exact duplicate", ids[copy_of[i]].decode(), "") for i in clear[copy_of[clear] != clear].tolist()}
    # Who contradicts another one is no copy of it, however alike they are.
    opposed = Found([], 0)
    if config.contradictions != "off":
        opposed = find_contradictions(lambda: _batches(folders), first, copy_of)
    contradicted, tagged = settle(opposed, ids, drop=config.contradictions == "drop")
    lost |= contradicted
    apart = {(pair.first, pair.second) for pair in opposed.pairs}
    for index, best in copies_across(given, copy_of, near.kept, lost, apart).items():
        if index not in contradicted:
            detail = f"given as {SPLITS[given[index]]}; its copy is in {SPLITS[given[best]]}"
            lost[index] = (ELSEWHERE, ids[best].decode(), detail)
    examples: list[dict[str, Any]] = []
    if config.near_duplicates:
        for index in np.flatnonzero(near.kept != everyone).tolist():
            best, detail = int(near.kept[index]), f"Jaccard similarity {near.similarity[index]:.2f}"
            if index in lost or best in contradicted or (min(index, best), max(index, best)) in apart:
                continue
            lost[index] = ("near duplicate", ids[best].decode(), detail)
            if len(examples) < _EXAMPLES:
                texts = {"dropped": sketches.texts(index), "kept": sketches.texts(best)}
                shown = {name: " / ".join(text[:160] for text in pair if text) for name, pair in texts.items()}
                examples.append({"id": ids[index].decode(), "detail": detail, **shown})
    kept = np.setdiff1d(everyone, np.fromiter(lost, np.int64))
    gone = Counter(rule for rule, _, _ in lost.values()) + Counter(dropped)
    if not len(kept):
        raise DataError(f"no record is left: {what_dropped(gone)}", fix=way_out(gone))
    # What is lost still links: its customer's other rows must not stand in another split than the row it equals.
    linked = connected([hashes.group, first_copies(hashes.content, order) + 1, near.kept + 1])
    labels = components(hashes.take(kept), connected([linked + 1, near.related + 1])[kept])
    alone = kept[(hashes.is_document & (hashes.group == 0))[kept] & (np.bincount(labels)[labels] == 1)]
    cut: dict[int, list[tuple[int, Record]]] = {}
    if 0 < len(alone) < FEW_DOCUMENTS and not given.any():
        cut = _cut_documents(_rows_at(_batches(folders), alone), config, others=len(np.unique(labels)))
    rest = kept[~np.isin(kept, list(cut))]
    splits, stock, pairs, largest = np.full(len(hashes), -1), np.empty(0, np.uint64), np.empty(0, np.int64), 0
    if given.any():
        dealt = deal_given(
            hashes.take(rest), linked[rest], near.related[rest], given[rest],
            valid_share=config.valid_share, test_share=config.test_share, seed=config.seed,
        )  # fmt: skip
    elif len(rest):
        few = cut and len(np.unique(labels[~np.isin(kept, list(cut))])) < len(SPLITS)
        dealt = deal(
            hashes.take(rest), linked[rest], near.related[rest], valid_share=config.valid_share,
            test_share=config.test_share, seed=config.seed, needed=() if few else (VALID, TEST),
            dropped=gone,
        )  # fmt: skip
    if len(rest):
        splits[rest], stock, largest = dealt.splits, dealt.stock, int(np.bincount(dealt.labels).max())
        pairs = np.unique(np.stack([dealt.splits, dealt.labels]), axis=1)[0]
    made = [split for sections in cut.values() for split, _ in sections]
    train, valid, test = (int((pairs == split).sum()) + made.count(split) for split in range(3))
    contradictions = {"pairs": len(opposed.pairs), "not_compared": opposed.left_out, "examples": [
        {"ids": [ids[pair.first].decode(), ids[pair.second].decode()], "detail": pair.detail,
         "question": pair.question[:160], "answers": [answer[:160] for answer in pair.answers]}
        for pair in opposed.pairs[:_EXAMPLES]]}  # fmt: skip
    tagged = {index: detail for index, detail in tagged.items() if index not in lost}
    return _Plan(lost, splits, cut, (train, valid, test), largest, stock, examples, tagged, contradictions)


def _found(folders: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Records that hold runs of an examination, and the runs."""
    parts, start = [np.empty((2, 0), np.int64)], 0
    for folder in folders:
        with np.load(folder / FOUND) as stored:
            parts.append(stored["found"] + np.array([[start], [0]]))
        start += sum(pq.read_metadata(path).num_rows for path in shards(folder))
    rows, runs = np.concatenate(parts, axis=1)
    return rows, runs


def _near(
    sketches: Sketches, members: np.ndarray, can_go: np.ndarray, work: Path, order: Order, given: np.ndarray,
    *, all_stay: bool,
) -> Near:  # fmt: skip
    """The search for near duplicates, which a killed run need not repeat."""
    path = work / (_NEAR_GIVEN if given.any() else _NEAR)
    if not path.exists():
        with artifacts.replacing(path) as aside:
            find_near(sketches, members, can_go, order, ranks_of(given), all_stay=all_stay).save(aside)
    return Near.load(path)


def _leaks(plan: _Plan, hashes: Signatures, sketches: Sketches) -> dict[str, Any]:
    """What the splits still share, counted on what was written; sections of documents are not compared."""
    rows, replies = hashes.reply_rows(), hashes.replies
    stays = (plan.splits[rows] == TRAIN) | ~np.isin(replies, plan.stock)
    return count_leaks(sketches, (rows[stays], replies[stays]), plan.splits)


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
    dropped: Dropped,
    writers: list[ShardWriter],
    advance: Callable[..., None],
    mentions: MentionCounts | None,
) -> None:
    start = 0
    for batch in batches:
        indices = np.arange(start, start + len(batch))
        start += len(batch)
        if tagged := [index for index in indices.tolist() if index in plan.tagged]:
            batch = with_tag(batch, np.array(tagged) - indices[0], CONTRADICTORY)
            for index in tagged:
                ledger.event("row", hashes.ids[index].decode(), "changed", CONTRADICTION, detail=plan.tagged[index])
        if mentions is not None:
            mentions.add(batch.filter(pa.array([index not in plan.lost for index in indices.tolist()])))
        trimmed = _trimmed(plan, hashes, indices)
        for split, name in enumerate(SPLITS):
            chosen = plan.splits[indices] == split
            part = batch.filter(pa.array(chosen))
            if trimmed[chosen].any():
                part, entries = without_replies(part, plan.stock)
                ledger.add(entries)
                left = np.isin(indices, indices[chosen])
                gone = {entry.id for entry in entries if entry.unit == "row" and entry.fate == "dropped"}
                if gone:
                    out = np.isin(hashes.ids[indices], np.array(sorted(gone), "S24")) & left
                    dropped.add(batch.filter(pa.array(out)), ["leak"] * int(out.sum()))
            counts = count_messages(part)
            writers[split].write(part)
            for id, count in zip(part.column("id").to_pylist(), counts.tolist(), strict=True):
                _fate(ledger, id, count, "kept", name, id)
        for index in (index for index in indices.tolist() if index in plan.cut):
            for split, row in plan.cut[index]:
                writers[split].write(pa.RecordBatch.from_pylist([row], schema=SCHEMA))
            ledger.add(_cut_entries(hashes.ids[index].decode(), plan.cut[index]))
        lost = [index for index in indices.tolist() if index in plan.lost]
        if lost:
            dropped.add(batch.take(pa.array(np.array(lost) - indices[0])), [plan.lost[index][0] for index in lost])
        for index in lost:
            rule, parent, detail = plan.lost[index]
            _fate(ledger, hashes.ids[index].decode(), int(hashes.messages[index]), "dropped", rule, parent, detail)
        advance(len(batch))


def _trimmed(plan: _Plan, hashes: Signatures, indices: np.ndarray) -> np.ndarray:
    """Which of these records hold a stock reply that their split must not keep."""
    if not len(plan.stock):
        return np.zeros(len(indices), bool)
    some = hashes.take(indices)
    held = np.bincount(some.reply_rows()[np.isin(some.replies, plan.stock)], minlength=len(indices)) > 0
    return held & (plan.splits[indices] > TRAIN)


def _fate(ledger: Ledger, id: str, messages: int, fate: Fate, rule: str, parent: str, detail: str = "") -> None:
    """The fate of a record and of its messages."""
    ledger.fate("row", id, fate, rule, parents=(parent,), detail=detail)
    ledger.fate("message", id, fate, rule, count=messages, parents=(parent,))


def _cut_entries(parent: str, made: list[tuple[int, Record]]) -> Iterator[Entry]:
    yield Entry("row", parent, "split", "sections", parents=(parent,), makes=len(made))
    for split, row in made:
        yield Entry("row", row["id"], "kept", SPLITS[split], parents=(parent,))
