"""Chunks of tasks read by several processes at once, or here; the result does not depend on how many there are."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from ownchat.config import DataConfig
from ownchat.data.importing import Outcome, import_task
from ownchat.data.ledger import Ledger
from ownchat.data.plan import Task
from ownchat.data.processes import END, Message, Tell, serve, work_through
from ownchat.data.records import ShardWriter
from ownchat.data.remote import pack, unpack

LEAST_BYTES = 16_000_000  # below, a process is not worth its start

Books = dict[str, Any]
Result = tuple[Path, list[Outcome], Books]


def read_chunks(
    chunks: Sequence[list[Task]],
    data: DataConfig,
    room: Path,
    on_bytes: Callable[[int], None],
) -> Iterator[Result]:
    """Each chunk's folder (shards and ledger), outcomes and books, in order of the chunks.

    ``on_bytes`` is called from this thread only. Raises :class:`~ownchat.errors.OwnchatError` when a worker dies.
    """
    size = sum(task.size for chunk in chunks for task in chunk)
    count = min(data.workers or os.cpu_count() or 1, len(chunks))
    if count > 1 and size >= LEAST_BYTES:
        yield from _in_processes(chunks, data, room, on_bytes, count)
        return
    for number, chunk in enumerate(chunks):
        folder = room / f"{number:05d}"
        outcomes, books = read_chunk(chunk, data, folder, on_bytes)
        yield folder, outcomes, books


def read_chunk(
    chunk: list[Task], data: DataConfig, folder: Path, on_bytes: Callable[[int], None]
) -> tuple[list[Outcome], Books]:
    """Read tasks into the shards and the ledger of a folder."""
    with Ledger(folder) as ledger, ShardWriter(folder) as writer, _seldom_collecting():
        ledger.enter("file", sum(len(task.files) for task in chunk))
        outcomes = [import_task(task, data, ledger, writer, on_bytes) for task in chunk]
    return outcomes, ledger.books()


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Python's search for circles among objects looks at every message held: by default a tenth of the time.

    Rows hold no circles, and a batch of them is some ten thousand objects.
    """
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


# ------------------------------------------------------------------------------------------------------ processes


def _in_processes(
    chunks: Sequence[list[Task]], data: DataConfig, room: Path, on_bytes: Callable[[int], None], count: int
) -> Iterator[Result]:
    jobs = [
        {
            "folder": str(room / f"{number:05d}"),
            "tasks": [{**asdict(task), "files": [[pack(place), name] for place, name in task.files]} for task in chunk],
        }
        for number, chunk in enumerate(chunks)
    ]
    done: dict[int, Result] = {}
    wanted = 0
    for number, message in work_through("ownchat.data.workers", data.model_dump(mode="json"), jobs, count, "reading"):
        on_bytes(message["bytes"])
        if END in message:
            outcomes = [Outcome(**outcome) for outcome in message["outcomes"]]
            done[number] = room / f"{number:05d}", outcomes, message["books"]
        while wanted in done:  # in order of the chunks, whoever is ready first
            yield done.pop(wanted)
            wanted += 1


def _prepare(setup: Message, tell: Tell) -> Callable[[Message], Message]:
    data = DataConfig.model_validate(setup)
    told = 0

    def on_bytes(count: int) -> None:
        nonlocal told
        told += count
        if told >= 1 << 20:
            tell({"bytes": told})
            told = 0

    def read(job: Message) -> Message:
        nonlocal told
        tasks = [Task(**task) for task in job["tasks"]]
        for task in tasks:
            task.files = [(unpack(cast(Any, place)), name) for place, name in task.files]
        outcomes, books = read_chunk(tasks, data, Path(job["folder"]), on_bytes)
        rest, told = told, 0
        return {"bytes": rest, "outcomes": [asdict(outcome) for outcome in outcomes], "books": books}

    return read


if __name__ == "__main__":
    serve(_prepare)
