"""Answers to many prompts from one engine: batched in this process, in parallel behind a URL. No torch here.

A prompt that has no answer (too long, the server failed) comes back with an empty text and its error: the caller counts
it, and nothing is put in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, cast

from ownchat.errors import UserError
from ownchat.generate.engine import Delta, Engine, Message, Request, Sampling

if TYPE_CHECKING:
    from ownchat.generate.hf import HfEngine

BATCH_TOKENS = 8_192  # of prompts, padding included, in one forward pass: bounds what the first one takes of memory
BATCH_ROWS = 32
GREEDY = Sampling()


@dataclass(frozen=True)
class Answered:
    """An answer without the white space around it, what it took, or why there is none.

    ``seconds``: of a batch each answer has its equal share; behind a URL it is the time until the answer was there,
    retries included. Tokens are 0 where a server does not count them.
    """

    text: str
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    error: str | None = None
    unusable: bool = False  # the error is the server's (down, key refused, too slow), and not of this prompt


AnswerFunction = Callable[[Sequence[Sequence[Message]]], list[Answered]]
Arrived = Callable[[int, Answered], object]  # told of each answer as it comes, with the row of its prompt


def answer_all(
    engine: Engine,
    prompts: Sequence[Sequence[Message]],
    *,
    max_tokens: int,
    sampling: Sampling = GREEDY,
    progress: Callable[[int], object] | None = None,
    at_once: int = 8,
    arrived: Arrived | None = None,
) -> list[Answered]:
    """One answer for each prompt (the messages up to the reply), in their order.

    A model in this process answers in batches where ``sampling`` is plainly greedy, else one after the other. A server
    is asked ``at_once`` questions in parallel, each with the retries of its engine; where it cannot be used at all
    (down, key refused, model unknown) the rest is not asked. ``progress(1)`` is called for each answer, and before it
    ``arrived``: of a batch when the whole of it is there.
    """
    if not prompts:
        return []
    if hasattr(engine, "answer_batch") and sampling == Sampling(seed=sampling.seed):
        return _batched(cast("HfEngine", engine), prompts, max_tokens, progress, arrived)
    from ownchat.generate.openai import Busy, OpenAIEngine, Unusable

    gone: list[str] = []  # why the server cannot be used
    if isinstance(engine, OpenAIEngine):
        try:
            _ = engine.model  # asked for once, and not by every thread
        except UserError as error:
            gone.append(error.what)

    def ask(messages: Sequence[Message]) -> Answered:
        if gone:
            return Answered("", 0.0, 0, 0, gone[0], unusable=True)
        start = time.monotonic()
        try:
            text, last = "", Delta("")
            request = Request(messages=messages, max_tokens=max_tokens, sampling=sampling)
            for last in [engine.complete(request)] if isinstance(engine, OpenAIEngine) else engine.stream(request):
                text += last.text
        except UserError as error:
            if isinstance(error, Unusable):
                gone.append(error.what)
            unusable = isinstance(error, Unusable | Busy)
            return Answered("", time.monotonic() - start, 0, 0, error.what, unusable)
        usage = last.usage
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage is not None else (0, 0)
        return Answered(text.strip(), time.monotonic() - start, *tokens)

    return _in_threads(ask, prompts, at_once if isinstance(engine, OpenAIEngine) else 1, progress, arrived)


def _batched(
    engine: HfEngine,
    prompts: Sequence[Sequence[Message]],
    max_tokens: int,
    progress: Callable[[int], object] | None,
    arrived: Arrived | None,
) -> list[Answered]:
    from ownchat.tokenizer.render import prompt_ids

    answers: list[Answered | None] = [None] * len(prompts)
    rendered: dict[int, list[int]] = {}

    def done(row: int, answer: Answered) -> None:
        answers[row] = answer
        if arrived is not None:
            arrived(row, answer)

    for row, messages in enumerate(prompts):
        ids: list[int] = []
        why = None
        try:
            ids = prompt_ids(engine.tokenizer, messages)
        except UserError as error:  # what this template does not take: a system message, two of one role in a row
            why = error.what
        if engine.context is not None and len(ids) >= engine.context:
            why = f"{len(ids):,} tokens do not fit: the model's context is {engine.context:,} tokens"
        if why is None:
            rendered[row] = ids
            continue
        done(row, Answered("", 0.0, len(ids), 0, why))
        if progress is not None:
            progress(1)
    for rows in batches({row: len(ids) for row, ids in rendered.items()}):
        start = time.monotonic()
        made = engine.answer_batch([rendered[row] for row in rows], max_tokens, progress=progress)
        share = (time.monotonic() - start) / len(rows)
        for row, ids in zip(rows, made, strict=True):
            done(row, Answered(engine.text(ids).strip(), share, len(rendered[row]), len(ids)))
    return cast(list[Answered], answers)


def batches(lengths: dict[int, int], tokens: int = BATCH_TOKENS, rows: int = BATCH_ROWS) -> list[list[int]]:
    """Rows by falling length, in batches of at most ``rows`` and, padded to the longest, ``tokens``: what does not fit
    into memory shows itself at once.

    >>> batches({0: 10, 1: 50, 2: 40, 3: 10}, tokens=100)
    [[1, 2], [0, 3]]
    """
    made: list[list[int]] = []
    for row in sorted(lengths, key=lambda row: (-lengths[row], row)):
        if made and len(made[-1]) < rows and (len(made[-1]) + 1) * lengths[made[-1][0]] <= tokens:
            made[-1].append(row)
        else:
            made.append([row])
    return made


def _in_threads(
    ask: Callable[[Sequence[Message]], Answered],
    prompts: Sequence[Sequence[Message]],
    at_once: int,
    progress: Callable[[int], object] | None,
    arrived: Arrived | None,
) -> list[Answered]:
    """``ask`` for each prompt. The threads are daemons: an interrupted program does not wait for a slow server."""
    todo = deque(enumerate(prompts))
    done: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    stop = Event()

    def work() -> None:
        while not stop.is_set():
            try:
                row, messages = todo.popleft()
            except IndexError:
                return
            try:
                done.put((row, ask(messages)))
            except BaseException as error:  # raised again where somebody sees it
                done.put((row, error))

    for _ in range(min(at_once, len(prompts))):
        Thread(target=work, daemon=True).start()
    answers: dict[int, Answered] = {}
    try:
        while len(answers) < len(prompts):
            row, answer = done.get()
            if isinstance(answer, BaseException):
                raise answer
            answers[row] = answer
            if arrived is not None:
                arrived(row, answer)
            if progress is not None:
                progress(1)
    finally:
        stop.set()
    return [answers[row] for row in range(len(prompts))]


def remembered(
    answer: Callable[[Sequence[Sequence[Message]], Arrived], list[Answered]], path: Path, key: str
) -> AnswerFunction:
    """``answer`` that keeps what came in a JSON Lines file and asks nothing twice: answers cost time, or money.

    ``answer`` tells of each answer as it comes, and then it is written: an interrupted program has kept it.
    ``key``: everything but the messages that an answer depends on (model, sampling). What failed is not kept. The file
    holds answers and no questions, and is for its owner alone.
    """

    def named(messages: Sequence[Message]) -> str:
        return hashlib.sha256(f"{key}\0{json.dumps(list(messages), sort_keys=True, default=str)}".encode()).hexdigest()

    def ask(prompts: Sequence[Sequence[Message]]) -> list[Answered]:
        known = _kept(path)
        names = [named(messages) for messages in prompts]
        first: dict[str, int] = {}
        for row, name in enumerate(names):
            if name not in known:
                first.setdefault(name, row)
        todo = list(first.values())
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n")  # of a program that was killed
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
            if half:
                file.write(b"\n")

            def keep(row: int, one: Answered) -> None:
                if one.error is None:
                    line = json.dumps({"key": names[todo[row]]} | asdict(one), ensure_ascii=False) + "\n"
                    file.write(line.encode("utf-8", "replace"))
                    file.flush()

            made = answer([prompts[row] for row in todo], keep) if todo else []
        fresh = {names[row]: one for row, one in zip(todo, made, strict=True)}
        return [known[name] if name in known else fresh[name] for name in names]

    return ask


def _kept(path: Path) -> dict[str, Answered]:
    """What a file of :func:`remembered` holds; half a last line is passed over."""
    found: dict[str, Answered] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with suppress(ValueError, KeyError, TypeError):
                values = json.loads(line)
                name = values.pop("key")
                found[name] = Answered(**values)
    return found
