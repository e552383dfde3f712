"""Chunks of tasks read by several processes at once, or here; the result does not depend on how many there are.

A worker is a process of its own (``python -m ownchat.data.workers``), which takes chunks as lines of JSON and writes
each into a folder: no fork of a process that may hold threads, and no second run of a user's script.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.importing import Outcome, import_task
from ownchat.data.ledger import Ledger
from ownchat.data.plan import Task
from ownchat.data.records import ShardWriter
from ownchat.errors import OwnchatError

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
    with Ledger(folder) as ledger, ShardWriter(folder) as writer:
        ledger.enter("file", sum(len(task.files) for task in chunk))
        outcomes = [import_task(task, data, ledger, writer, on_bytes) for task in chunk]
    return outcomes, ledger.books()


# ----------------------------------------------------------------------------------------------------- the parent


def _in_processes(
    chunks: Sequence[list[Task]], data: DataConfig, room: Path, on_bytes: Callable[[int], None], count: int
) -> Iterator[Result]:
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(chunks)):
        waiting.put(number)
    told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    command = [sys.executable, "-m", "ownchat.data.workers"]
    workers = [  # a session of their own: Ctrl-C is for this process, which ends them
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(count)
    ]

    def serve(worker: subprocess.Popen[str]) -> None:
        assert worker.stdin and worker.stdout
        try:
            worker.stdin.write(data.model_dump_json() + "\n")
            while True:
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    return
                tasks = [{**asdict(t), "files": [[str(path), name] for path, name in t.files]} for t in chunks[number]]
                worker.stdin.write(json.dumps({"folder": str(room / f"{number:05d}"), "tasks": tasks}) + "\n")
                worker.stdin.flush()
                for line in worker.stdout:
                    message = json.loads(line)
                    told.put({**message, "number": number})
                    if "outcomes" in message:
                        break
                else:
                    raise OwnchatError(f"a reading process ended with code {worker.wait()}")
        except (OSError, ValueError, OwnchatError) as error:
            told.put({"failed": str(error)})

    threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in workers]
    done: dict[int, Result] = {}
    try:
        for thread in threads:
            thread.start()
        for wanted in range(len(chunks)):
            while wanted not in done:
                message = told.get()
                if "failed" in message:
                    raise OwnchatError(f"reading failed: {message['failed']} (see its message above)")
                if "bytes" in message:
                    on_bytes(message["bytes"])
                else:
                    number = message["number"]
                    outcomes = [Outcome(**outcome) for outcome in message["outcomes"]]
                    done[number] = room / f"{number:05d}", outcomes, message["books"]
            yield done.pop(wanted)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        for thread in threads:
            thread.join()
        for worker in workers:
            for pipe in (worker.stdin, worker.stdout):
                if pipe:
                    pipe.close()


# ----------------------------------------------------------------------------------------------------- the worker


def main() -> None:
    """Take chunks from standard input until it ends; tell bytes and results on standard output."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not stand between our lines
    data = DataConfig.model_validate_json(sys.stdin.readline())
    told = 0

    def on_bytes(count: int) -> None:
        nonlocal told
        told += count
        if told >= 1 << 20:
            out.write(json.dumps({"bytes": told}) + "\n")
            told = 0

    for line in sys.stdin:
        job = json.loads(line)
        tasks = [Task(**task) for task in job["tasks"]]
        for task in tasks:
            task.files = [(Path(path), name) for path, name in task.files]
        outcomes, books = read_chunk(tasks, data, Path(job["folder"]), on_bytes)
        out.write(json.dumps({"bytes": told}) + "\n")
        told = 0
        out.write(json.dumps({"outcomes": [asdict(outcome) for outcome in outcomes], "books": books}) + "\n")


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the parent was killed: there is nobody to tell
        os._exit(1)
