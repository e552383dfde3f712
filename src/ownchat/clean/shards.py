"""The first pass: each shard of records goes through the steps and leaves a folder, in one process or several.

A shard's folder appears under its name only when it is whole, by a rename, so that a run that was killed finds what was
done and goes on. What is in it depends on the shard and the settings alone, not on who worked or in which order.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ownchat.artifacts import replacing
from ownchat.clean.batches import count_messages, with_column
from ownchat.clean.boilerplate import Learned
from ownchat.clean.decontaminate import Examination
from ownchat.clean.private.step import redact_private
from ownchat.clean.shingles import Folded, whole
from ownchat.clean.signatures import Sides, concatenate, sides, signatures
from ownchat.clean.sketches import FORM_SAMPLE, SketchWriter, learn_forms
from ownchat.clean.steps import Step, run_steps, steps_for
from ownchat.clean.topic import SAMPLE as TOPIC_SAMPLE
from ownchat.clean.topic import Topic, learn_topic, read_description
from ownchat.config import CleanConfig
from ownchat.data.ledger import Ledger
from ownchat.data.processes import Message, Tell, serve, work_through
from ownchat.data.records import ShardWriter

EXAMPLES = 3  # dropped records of each rule that the report shows
LEAST_BYTES = 16_000_000  # of parquet; below, a process is not worth its start
MOST_WORKERS = 4  # when nobody says how many: each holds about a quarter of a gigabyte
_BATCH_BYTES = 4_000_000  # of text worked on at a time
_ROWS = 1024
_MASKED_CHARS = 20_000  # of a dropped document of which the beginning is shown
DONE, HASHES, FOUND, FORMS, TOPIC = "done.json", "signatures.npz", "contaminated.npz", "forms.npy", "topic.npz"

Job = tuple[Path, Path]  # a shard, and the folder that it leaves


@dataclass
class Dropped:
    """Dropped records are kept in shards of their own, and a few of each rule are shown."""

    writer: ShardWriter
    mask: Step | None = None  # takes private data out of what is shown; none: it is out, or is not masked at all
    examples: list[dict[str, Any]] = field(default_factory=list)
    shown: dict[str, int] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch, rules: Sequence[str]) -> None:
        """Keep a batch of dropped records; ``rules`` has one name for each."""
        self.writer.write(batch)
        for index, rule in enumerate(rules):
            if self.shown.get(rule, 0) < EXAMPLES:
                one = batch.slice(index, 1)
                if self.mask is not None:
                    start = pc.utf8_slice_codeunits(one.column("text"), 0, _MASKED_CHARS)
                    one = self.mask(with_column(one, "text", start))[0]
                row = one.to_pylist()[0]
                text = row["text"] or " / ".join(turn["content"] or "" for turn in row["messages"] or ())
                source = {"file": row["source"]["file"], "line": row["source"]["line"]}
                self.show({"rule": rule, "id": row["id"], **source, "text": " ".join(text.split())[:160]})

    def show(self, example: dict[str, Any]) -> None:
        """Take an example, unless there are enough of its rule."""
        if self.shown.get(example["rule"], 0) < EXAMPLES:
            self.shown[example["rule"]] = self.shown.get(example["rule"], 0) + 1
            self.examples.append(example)


def learn(paths: Sequence[Path], stored: Path) -> None:
    """What the steps must know of all records before they see one; kept in ``stored`` for the workers."""
    if not stored.exists():
        learned = Learned()
        for path in paths:
            for batch in small_batches(path):
                learned.learn(batch)
        learned.save(stored)


def find_forms(paths: Sequence[Path], stored: Path) -> None:
    """Learn forms (:func:`~ownchat.clean.sketches.learn_forms`) from some thousand records, evenly taken."""

    def sampled() -> Iterator[Folded]:
        for batch in _sample(paths, FORM_SAMPLE):
            said = sides(batch)
            yield whole(said.asked, said.answered)

    with replacing(stored) as aside:
        np.save(aside, learn_forms(sampled()))


def find_topic(paths: Sequence[Path], stored: Path, topic: str) -> None:
    """Learn what the records are about (:func:`~ownchat.clean.topic.learn_topic`) from some thousand of them."""
    with replacing(stored) as aside:
        learn_topic(_sample(paths, TOPIC_SAMPLE), read_description(topic)).save(aside)


def _sample(paths: Sequence[Path], count: int) -> Iterator[pa.RecordBatch]:
    """About ``count`` records, evenly taken."""
    sizes = [pq.read_metadata(path).num_rows for path in paths]
    step = max(1, sum(sizes) // count)
    start = 0
    for path, rows in zip(paths, sizes, strict=True):
        if -start % step >= rows:  # of many shards most have none
            start += rows
            continue
        for batch in small_batches(path):
            chosen = np.arange(-start % step, len(batch), step)
            start += len(batch)
            if len(chosen):
                yield batch.take(pa.array(chosen))


def first_pass(
    paths: Sequence[Path],
    work: Path,
    config: CleanConfig,
    workers: int | None,
    advance: Callable[..., None],
    elsewhere: Elsewhere | None = None,
) -> Iterator[Path]:
    """The folder of each shard in order; those that are there are not made again.

    ``work`` may hold what was learned and what to look for (``learned.npz``, ``examination/``). ``advance`` is called
    with numbers of records, from this thread only. ``elsewhere`` does the work in place of processes on this machine.
    """
    jobs = [(path, work / f"{number:05d}") for number, path in enumerate(paths)]
    left = [job for job in jobs if not job[1].exists()]
    count = min(workers or min(os.cpu_count() or 1, MOST_WORKERS), len(left))
    for path, folder in jobs:
        if folder.exists():
            advance(pq.read_metadata(path).num_rows)
    if elsewhere is not None and left:
        elsewhere(left, Tools.load(work, config), advance)
    elif count > 1 and sum(path.stat().st_size for path, _ in left) >= LEAST_BYTES:
        _in_processes(left, work, config, count, advance)
    elif left:
        tools = Tools.load(work, config)
        for path, folder in left:
            clean_shard(path, folder, tools, advance)
    yield from (folder for _, folder in jobs)


@dataclass(frozen=True)
class Tools:
    """What the work on a shard needs; it can be pickled."""

    config: CleanConfig
    forms: np.ndarray
    learned: Learned | None
    examination: Examination | None
    topic: Topic | None = None

    @staticmethod
    def load(work: Path, config: CleanConfig) -> Tools:
        learned, examination = work / "learned.npz", work / "examination"
        return Tools(
            config,
            np.load(work / FORMS),
            Learned.load(learned) if learned.exists() else None,
            Examination.load(examination) if (examination / "names.json").exists() else None,
            Topic.load(work / TOPIC) if (work / TOPIC).exists() else None,
        )


Elsewhere = Callable[[Sequence[Job], Tools, Callable[..., None]], None]


def clean_shard(path: Path, folder: Path, tools: Tools, advance: Callable[..., None]) -> None:
    """Run the steps on one shard: kept and dropped records, books, hashes and sketches into ``folder``."""
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    steps = steps_for(tools.config, tools.learned, tools.topic)
    ledger, parts, found, start = Ledger(aside), [], [], 0
    with (
        ShardWriter(aside) as kept,
        ShardWriter(aside / "dropped") as gone,
        SketchWriter(aside, tools.forms) as sketches,
    ):
        dropped = Dropped(gone, dict(steps).get(redact_private.__name__))
        for batch in small_batches(path):
            rows = len(batch)
            looks = [(batch, _look(tools.examination, batch))]
            ledger.enter("row", rows)
            ledger.enter("message", int(count_messages(batch).sum()))
            after = batch
            for name, before, left, entries in run_steps(batch, steps):
                after = left
                if name == redact_private.__name__ and before is not batch:
                    looks.append((before, _look(tools.examination, before)))
                ledger.add(entries)
                rules = {entry.id: entry.rule for entry in entries if entry.unit == "row" and entry.fate == "dropped"}
                if rules:
                    out = before.filter(pc.is_in(before.column("id"), pa.array(list(rules))))
                    dropped.add(out, [rules[id] for id in out.column("id").to_pylist()])
            if len(after):
                said = sides(after)
                parts.append(signatures(after, said))
                sketches.add(said.asked, said.answered)
                if tools.examination is not None:
                    # The steps bring out what the examination says (mended text) and hide it (private data).
                    earlier = [_survivors(pairs, before, after) for before, pairs in looks]
                    pairs = np.concatenate([*earlier, _look(tools.examination, after, said)], axis=1)
                    found.append(np.unique(pairs, axis=1) + np.array([[start], [0]]))
                start += len(after)
                kept.write(after)
            advance(rows)
    ledger.close()  # unchecked: what is kept here has its fate in the second pass
    if parts:
        concatenate(parts).save(aside / HASHES)
    if found:
        np.savez(aside / FOUND, found=np.concatenate(found, axis=1))
    done = {"books": ledger.books(), "examples": dropped.examples, "dropped": gone.rows}
    (aside / DONE).write_text(json.dumps(done))
    try:
        os.rename(aside, folder)
    except OSError:  # a worker of a run that was killed has finished it in the meantime
        if not folder.exists():
            raise
        shutil.rmtree(aside)


def _look(examination: Examination | None, batch: pa.RecordBatch, said: Sides | None = None) -> np.ndarray:
    """Rows that hold runs of the examination, and the runs: shape ``(2, pairs)``."""
    if examination is None:
        return np.empty((2, 0), np.int64)
    said = said or sides(batch)
    return np.stack(examination.find(whole(said.asked, said.answered)))


def _survivors(found: np.ndarray, before: pa.RecordBatch, after: pa.RecordBatch) -> np.ndarray:
    """What :func:`_look` found in the batch before the steps, as rows of what they left."""
    places = pc.fill_null(pc.index_in(before.column("id"), after.column("id")), -1).to_numpy().astype(np.int64)
    rows = places[found[0]]
    return np.stack([rows, found[1]])[:, rows >= 0]


def small_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The records of a shard, some megabytes of text at a time, or a single long one."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            waiting = [batch]
            while waiting:
                one = waiting.pop()
                if len(one) > 1 and one.nbytes > _BATCH_BYTES:
                    half = len(one) // 2
                    waiting += [one.slice(half), one.slice(0, half)]
                else:
                    yield one


# ------------------------------------------------------------------------------------------------------ processes


def _in_processes(
    jobs: Sequence[Job], work: Path, config: CleanConfig, count: int, advance: Callable[..., None]
) -> None:
    setup = {"work": str(work), "config": config.model_dump(mode="json")}
    shards = [{"path": str(path), "folder": str(folder)} for path, folder in jobs]
    for _, message in work_through("ownchat.clean.shards", setup, shards, count, "cleaning"):
        advance(message.get("rows", 0))


def _prepare(setup: Message, tell: Tell) -> Callable[[Message], Message]:
    tools = Tools.load(Path(setup["work"]), CleanConfig.model_validate(setup["config"]))

    def clean(job: Message) -> Message:
        clean_shard(Path(job["path"]), Path(job["folder"]), tools, lambda rows: tell({"rows": rows}))
        return {}

    return clean


if __name__ == "__main__":
    serve(_prepare)
