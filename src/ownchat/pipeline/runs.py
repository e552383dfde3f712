"""The runs of this machine: what they are, what they reached, whom they hold, and how to be rid of one or its text."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from ownchat import artifacts
from ownchat.artifacts import CLEAN, IMPORT, REPORT, SPLITS, TRAIN, read_json
from ownchat.errors import RunError, UserError, printable
from ownchat.evaluate import gates, wording
from ownchat.generate import prompts
from ownchat.pipeline import hosted_data, questions, replay, system_prompt
from ownchat.tokenizer.canaries import planted

RAW = (IMPORT, questions.STAGE)  # stages that hold the text as it came
REPLAYED = f"{replay.STAGE}/{replay.RECORDS}"  # trained on, too
PAGES = (  # of a report
    "report.html", "report.json", "ladder.json", "ladder-answers.jsonl", "ladder-prompt.yaml",
    "MODEL_CARD.md", "DATA_CARD.md",
)  # fmt: skip
LEDGER = "ledger.parquet"
_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class Run:
    """One line of ``ownchat runs``."""

    name: str
    status: str  # finished | training, step n | interrupted, step n | not trained | running at HOST
    result: str  # held-out loss, base -> tuned; requirements that are not met
    num_bytes: int
    modified: float  # Unix seconds
    promoted: bool | None = None  # whether all requirements are met; None: there are none


def describe(run: Path) -> Run:
    """What is known about a run, from its directory alone."""
    report = run / REPORT / "report.json"
    result, promoted = "", None
    if report.is_file():
        contents = read_json(report)
        result = _result(contents["held_out"])
        promoted = (contents.get("gates") or {}).get("passed")
        if unmet := len(gates.failed(contents)):
            result += f"; not promoted: {unmet} requirement{'s' if unmet > 1 else ''} not met"
    if planted(run) is not None:
        result, promoted = "; ".join(filter(None, [result, "with planted canaries"])), False
    return Run(run.name, status(run), result, _size(run), run.stat().st_mtime, promoted)


def not_promoted(run: Path) -> str | None:
    """Why a run is not to be used yet, in one line; None where its requirements are met, or there are none.

    A run in whose training canaries were planted is never to be used.
    """
    if planted(run) is not None:
        return printable(f"{run.resolve().name} is for measuring: secrets were planted in its training (canaries)")
    report = run / REPORT / "report.json"
    unmet = gates.failed(read_json(report)) if report.is_file() else []
    if not unmet:
        return None
    more = f", and {len(unmet) - 1} more" if len(unmet) > 1 else ""
    first = f'"{unmet[0]["require"]}" is not met ({unmet[0]["why"]})'
    return printable(f"{run.resolve().name} is not promoted: {first}{more}")


def _result(held_out: Mapping[str, Any]) -> str:
    losses = [held_out[who]["loss"] for who in ("base", "tuned")]
    if None in losses:  # of a service, which tells none
        return wording.headline(held_out).partition(" (")[0]
    base, tuned = (loss["value"] for loss in losses)
    return f"held-out loss {base:.3f} -> {tuned:.3f} ({(tuned - base) / base:+.0%})"


def status(run: Path) -> str:
    """How far a run is; a process that works on it holds its lock."""
    if artifacts.finished_model(run) is not None:
        return "finished"
    if (job := artifacts.hosted_job(run)) is not None:
        return f"{'finished' if artifacts.is_hosted(run) else job['status']} at {printable(job['host'])}"
    beats = list((run / TRAIN).glob("*/heartbeat"))
    if not beats:
        return "not trained"
    working = "training" if artifacts.is_locked(run) else "interrupted"
    newest = max(beats, key=lambda beat: beat.stat().st_mtime)  # of the phase that runs
    return f"{working}, step {read_json(newest)['step']}"


def delete(name: str) -> int:
    """Remove a run for good; returns the bytes freed. Raises :class:`~ownchat.errors.RunError` while it is in use."""
    run = artifacts.existing_run(name)
    if not ((run / "config.yaml").is_file() or (run / artifacts.IMPORT).is_dir()):
        raise RunError("this is not a run of ownchat", where=str(run), fix="remove it yourself if you mean it")
    size = describe(run).num_bytes
    with artifacts.locked(run):
        shutil.rmtree(run)
    return size


@artifacts.owner_only()
def purge_raw(name: str) -> int:
    """Remove the text of a run as it came, before cleaning, and what cleaning dropped; returns the bytes freed.

    The cleaned splits, the model and the report stay; the preview of the same name goes, for it can show private data.
    Of the ledgers what they quote of the text goes, places stay. Raises :class:`~ownchat.errors.RunError` for a run
    that is not cleaned (it would start from the raw text) or that is in use.
    """
    run = artifacts.existing_run(name)
    cleaned = run / CLEAN / artifacts.MANIFEST
    if not cleaned.is_file() and artifacts.finished_model(run) is None:
        raise RunError("it is not cleaned yet", where=str(run), fix="finish it, or remove it: ownchat runs --delete")
    preview = artifacts.previews() / run.name
    before = _size(run) + _size(preview)
    with artifacts.locked(run):
        for stage in RAW:
            for shard in (run / stage).glob("[0-9]*.parquet"):
                shard.unlink()
            (run / stage / artifacts.MANIFEST).unlink(missing_ok=True)  # it is not complete any more
        (run / questions.REPLIES).unlink(missing_ok=True)
        shutil.rmtree(run / CLEAN / "dropped", ignore_errors=True)
        if cleaned.is_file():
            manifest = read_json(cleaned)
            manifest["report"]["details"]["dropped"] = []  # examples of them
            artifacts.write_json(cleaned, manifest)
        for stage in (*RAW, CLEAN, replay.STAGE, f"{replay.STAGE}/{replay.IMPORTED}"):
            _forget_quotations(run / stage)
        if preview.is_dir() and run.parent == artifacts.home() / "runs":
            shutil.rmtree(preview)
    return before - _size(run) - _size(preview)


@dataclass(frozen=True)
class Place:
    """Where a run holds a text: a stage, and in how many records (for the report's files: 1)."""

    run: str
    stage: str
    records: int


def find(text: str) -> Iterator[Place]:
    """Where the runs of this machine hold a text, a person's name for example; letter case and white space aside.

    Searched are records of all stages that hold text (messages, names of speakers, documents, groups, names of files),
    ledgers (names of files, quotations), written questions, the report's files, prompts and the pages of previews; not
    the weights, which were trained on what ``2-clean/train`` and ``3-replay`` hold. Raises
    :class:`~ownchat.errors.UserError` for a text of less than two characters.
    """
    words = text.split()
    if len("".join(words)) < 2:
        raise UserError("give at least two characters to look for", where="runs find")
    pattern = r"[\s\p{Z}]+".join(re.escape(word) for word in words)
    loose = re.compile(r"\s+".join(re.escape(word) for word in words), re.IGNORECASE)
    for run in artifacts.list_runs():
        for stage in (*RAW, *(f"{CLEAN}/{name}" for name in (*SPLITS, "dropped")), REPLAYED):
            if count := _records_with(run / stage, pattern):
                yield Place(run.name, stage, count)
        for ledger in sorted([*run.glob(f"*/{LEDGER}"), *run.glob(f"*/*/{LEDGER}")]):
            if _ledger_has(ledger, pattern):
                yield Place(run.name, str(ledger.relative_to(run)), 1)
        sent = [run / TRAIN / artifacts.HOSTED / name for name in hosted_data.FILES.values()]
        for file in (
            run / questions.REPLIES,
            run / system_prompt.FILE,
            *sent,
            *(run / REPORT / name for name in PAGES),
        ):
            if _holds(file, loose):
                yield Place(run.name, str(file.relative_to(run)), 1)
    for file in sorted(artifacts.previews().glob("*/*")):
        if _holds(file, loose):
            yield Place(file.parent.name, f"previews/{file.parent.name}/{file.name}", 1)
    for file in sorted(prompts.directory().glob("*/*.yaml")):  # they can hold rows as examples
        if _holds(file, loose):
            yield Place(file.parent.name, f"prompts/{file.parent.name}/{file.name}", 1)


def found_lines(places: Sequence[Place]) -> list[str]:
    """What :func:`find` found, for people.

    >>> found_lines([Place("inbox", "1-data", 2)])
    ['inbox  1-data  2 records']
    """
    if not places:
        return ["no run holds this text"]
    lines = []
    for place in places:
        what = f"{place.records:,} record{'s' if place.records != 1 else ''}" if "." not in place.stage else "the file"
        lines.append(f"{place.run}  {place.stage}  {what}")
    if any(place.stage.endswith("/train") or place.stage == REPLAYED for place in places):
        lines.append("A model trained on records that hold it can repeat it: train again without, or delete the run.")
    return lines


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


def _holds(file: Path, pattern: re.Pattern[str]) -> bool:
    """Whether a small text file holds it; of a page what is read, not its marks."""
    if not file.is_file():
        return False
    text = file.read_text(encoding="utf-8", errors="replace")
    return bool(pattern.search(text) or (file.suffix == ".html" and pattern.search(unescape(_TAG.sub("", text)))))


def _records_with(directory: Path, pattern: str) -> int:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from ownchat.data.records import read_batches

    def found(texts: pa.Array) -> np.ndarray:
        hits = pc.fill_null(pc.match_substring_regex(texts, pattern, ignore_case=True), False)
        return np.asarray(hits.to_numpy(zero_copy_only=False), bool)

    count = 0
    for batch in read_batches(directory):
        hit = found(batch.column("text")) | found(batch.column("group")) | found(batch.column("source").field("file"))
        for name in ("messages", "chosen", "rejected"):
            lists = batch.column(name)
            flat, rows = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
            for field in ("content", "name", "tool_calls"):
                hit[rows[found(flat.field(field))]] = True
        count += int(hit.sum())
    return count


def _ledger_has(ledger: Path, pattern: str) -> bool:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(ledger) as file:
        return any(
            pc.any(pc.match_substring_regex(column, pattern, ignore_case=True)).as_py()
            for batch in file.iter_batches(columns=["id", "detail"])
            for column in batch.columns
        )


def _forget_quotations(stage: Path) -> None:
    """Details of a ledger end after the line they name."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from ownchat.data.ledger import NAME

    path = stage / NAME
    if path.is_file():
        table = pq.read_table(path)
        place = pc.replace_substring_regex(table.column("detail"), r"(, line \d+).*", r"\1")
        column = table.schema.get_field_index("detail")
        pq.write_table(table.set_column(column, "detail", place), path, compression="zstd")
