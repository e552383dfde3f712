"""Jobs done by several processes of our own (``python -m MODULE``), which take them as lines of JSON.

No fork of a process that may hold threads, and no second run of a user's script. The module calls :func:`serve`.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ownchat.errors import OwnchatError, UserError

Message = dict[str, Any]
Tell = Callable[[Message], None]
END = "end"  # a message that has it is the last one of its job
_REFUSED = "refused"  # [what, where, fix]: the job met a person's mistake, or a server that is away


def work_through(
    module: str, setup: Message, jobs: Sequence[Message], count: int, doing: str
) -> Iterator[tuple[int, Message]]:
    """What ``count`` processes tell about the jobs, as (number of the job, message), in the order in which it comes.

    Each process gets ``setup`` once. They are ended with this generator. Raises
    :class:`~ownchat.errors.OwnchatError` when one of them dies; ``doing`` is the word for that: "reading". A
    :class:`~ownchat.errors.UserError` of a job is raised here with the same words.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(jobs)):
        waiting.put(number)
    told: queue.SimpleQueue[tuple[int, Message] | str] = queue.SimpleQueue()
    workers = [  # a session of their own: Ctrl-C is for this process, which ends them
        subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in range(count)
    ]

    def attend(worker: subprocess.Popen[str]) -> None:
        assert worker.stdin and worker.stdout
        try:
            worker.stdin.write(json.dumps(setup) + "\n")
            while True:
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    return
                worker.stdin.write(json.dumps(jobs[number]) + "\n")
                worker.stdin.flush()
                for line in worker.stdout:
                    message = json.loads(line)
                    told.put((number, message))
                    if END in message:
                        break
                else:
                    raise OwnchatError(f"a {doing} process ended with code {worker.wait()}")
        except (OSError, ValueError, OwnchatError) as error:
            told.put(str(error))

    threads = [threading.Thread(target=attend, args=(worker,), daemon=True) for worker in workers]
    left = len(jobs)
    try:
        for thread in threads:
            thread.start()
        while left:
            item = told.get()
            if isinstance(item, str):
                raise OwnchatError(f"{doing} failed: {item} (see its message above)")
            if _REFUSED in item[1]:
                what, where, fix = item[1][_REFUSED]
                raise UserError(what, where=where, fix=fix)
            left -= END in item[1]
            yield item
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        for thread in threads:
            thread.join()
        for worker in workers:
            for pipe in (worker.stdin, worker.stdout):
                if pipe:
                    with suppress(OSError):  # what was not sent to a worker that died
                        pipe.close()


def serve(prepare: Callable[[Message, Tell], Callable[[Message], Message]]) -> None:
    """A worker's whole life: ``prepare(setup, tell)`` gives the function that does a job and returns its last message.

    Ends with standard input, and without a word when the parent was killed.
    """
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not stand between our lines

    def tell(message: Message) -> None:
        out.write(json.dumps(message) + "\n")

    try:
        do = prepare(json.loads(sys.stdin.readline()), tell)
        for line in sys.stdin:
            try:
                last = do(json.loads(line))
            except UserError as error:
                last = {_REFUSED: [error.what, error.where, error.fix]}
            tell({**last, END: True})
    except BrokenPipeError:  # there is nobody to tell
        os._exit(1)
