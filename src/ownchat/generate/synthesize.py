"""Questions and answers about documents, written by a model and kept only where the document says so.

Each passage of a document is shown to the model once; its reply is stored before it is looked at, so that what was
paid for is never asked twice. Every candidate is a row of the ledger: kept, or dropped with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path

from ownchat.data.given import given_tags
from ownchat.data.ledger import Entry
from ownchat.data.records import Record, message, record
from ownchat.errors import UserError
from ownchat.generate.engine import Engine, Message, Request, Sampling
from ownchat.generate.grounding import Passage, grounded, normal, parse, passages

Ask = Callable[[list[Message]], str | None]  # the reply; None: the passage is too long for the model

PASSAGE_CHARS = 2_400
ANSWER_TOKENS = 1_024
FORMAT = "synthetic"

_PROMPT = """\
Below is a passage{about}. Write {questions} {pairs} that a reader would ask somebody who knows the subject.

Rules:
- Everything in an answer must stand in the passage: add no fact, number or name.
- Each question must be clear to somebody who does not see the passage: name the thing it asks about, and never say
  "the passage", "the text", "above" or "according to".
- Answer in one to four full sentences, in the language of the passage.
- "quote" is the sentence of the passage that the answer rests on, copied letter by letter.
- If the passage says too little for {questions}, write fewer; if it says nothing worth asking, write [].

Reply with a JSON list and nothing else:
[{{"question": "...", "answer": "...", "quote": "..."}}]

Passage:
\"\"\"
{text}
\"\"\"
"""


def prompt(passage: Passage, questions: int) -> list[Message]:
    """What the model is asked about a passage: one message, since not every model takes a system message."""
    about = f" from a document, section: {passage.heading}" if passage.heading else " from a document"
    pairs = "question with its answer" if questions == 1 else "questions with their answers"
    return [
        {
            "role": "user",
            "content": _PROMPT.format(about=about, questions=questions, pairs=pairs, text=passage.text),
        }
    ]


def synthesize(
    records: Iterable[Record],
    ask: Ask,
    questions: int,
    *,
    model: str = "",
    cache: Path | None = None,
    max_chars: int = PASSAGE_CHARS,
    at_once: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Record | Entry]:
    """Conversations of one question about the documents among ``records``, and an entry for each rejected candidate.

    A conversation is ``synthetic``, has the passage in ``text`` (which is not trained), the document's ``source``
    and its id as ``group``, so that all questions about one document fall into one split. ``cache``: a JSON Lines file
    that keeps the replies; the same passage, prompt and ``model`` are not asked again. ``at_once`` passages are asked
    in parallel, and come out in order. ``progress(1)`` is called for each passage.

    Raises what ``ask`` raises; replies that came before are in the cache.
    """
    if questions < 1:
        return
    seen: set[bytes] = set()
    replies = _Replies(cache)
    try:
        for document, number, passage, reply in _asked(records, ask, questions, model, replies, max_chars, at_once):
            if progress is not None:
                progress(1)
            yield from _judged(document, number, passage, reply, questions, seen)
    finally:
        replies.close()


def ask_url(url: str, model: str, *, timeout_seconds: float = 120.0, retries: int = 4) -> Ask:
    """Ask an OpenAI-compatible server (``http://localhost:8000/v1``); its key is ``OPENAI_API_KEY``.

    The function raises what :class:`~ownchat.generate.openai.OpenAIEngine` raises. Nothing is logged.
    """
    from ownchat.generate.openai import OpenAIEngine

    engine = OpenAIEngine(url, model, timeout_seconds=timeout_seconds, retries=retries)

    def ask(messages: list[Message]) -> str | None:
        try:
            return engine.complete(Request(messages=messages), limited=False).text
        except UserError as error:
            if error.where == "prompt":  # longer than the model's context
                return None
            raise

    return ask


def ask_local(engine: Engine, *, max_tokens: int = ANSWER_TOKENS) -> Ask:
    """Ask a model in this process, greedily: the same passage gives the same questions."""

    def ask(messages: list[Message]) -> str | None:
        try:
            deltas = engine.stream(Request(messages=messages, max_tokens=max_tokens, sampling=Sampling()))
            return "".join(delta.text for delta in deltas)
        except UserError as error:
            if error.where == "prompt":  # longer than the model's context
                return None
            raise

    return ask


# ----------------------------------------------------------------------------------------------------------------


def _asked(
    records: Iterable[Record], ask: Ask, questions: int, model: str, replies: _Replies, max_chars: int, at_once: int
) -> Iterator[tuple[Record, int, Passage, str | None]]:
    """Each passage with its reply, in order; at most ``at_once`` are being asked, so memory stays bounded."""
    todo = (
        (document, number, passage)
        for document in records
        if document["kind"] == "document" and document["text"]
        for number, passage in enumerate(passages(document["text"], max_chars), 1)
    )
    waiting: deque[tuple[Record, int, Passage, str, str | None, Future[str | None] | None]] = deque()
    pool = ThreadPoolExecutor(max(at_once, 1))
    try:
        for item in chain(todo, [None] * at_once):  # the Nones let the last ones out
            if len(waiting) >= at_once or (item is None and waiting):
                document, number, passage, key, reply, future = waiting.popleft()
                if future is not None:
                    reply = future.result()
                yield document, number, passage, reply
            if item is not None:
                document, number, passage = item
                messages = prompt(passage, questions)
                key = _key(model, messages)
                known, reply = replies.get(key)
                job = None if known else pool.submit(_ask_and_keep, ask, messages, key, replies)
                waiting.append((document, number, passage, key, reply, job))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # those under way are paid for: let them reach the cache


def _ask_and_keep(ask: Ask, messages: list[Message], key: str, replies: _Replies) -> str | None:
    try:
        reply = ask(messages)
    except UserError as error:
        if not replies.kept:
            raise
        fix = f"{error.fix}; run again: what was answered is kept".removeprefix("; ")
        raise type(error)(error.what, where=error.where, fix=fix) from error
    replies.put(key, reply)
    return reply


def _judged(
    document: Record, number: int, passage: Passage, reply: str | None, questions: int, seen: set[bytes]
) -> Iterator[Record | Entry]:
    source = document["source"]
    place = f"{source['file']}, line {source['line']}, passage {number}"

    def rejected(index: int, reason: str, question: str = "") -> Entry:
        rule, _, what = reason.partition(": ")
        id = hashlib.sha256(f"{document['id']}\0{number}\0{index}".encode()).hexdigest()[:24]
        detail = (
            place + (f": {what}" if what else "") + (f' in "{" ".join(question.split())[:80]}"' if question else "")
        )
        return Entry("row", id, "dropped", f"not grounded: {rule}", parents=(document["id"],), detail=detail)

    if reply is None:
        yield rejected(0, "passage too long for the model")
        return
    candidates = parse(reply)
    if not candidates and reply.strip().strip("`json \n") != "[]":
        yield rejected(0, "no question in the reply")
    for index, candidate in enumerate(candidates):
        if index >= 2 * questions:
            yield rejected(index, "more questions than asked for", candidate.question)
            continue
        reason = grounded(candidate, passage.text)
        key = hashlib.blake2b(normal(candidate.question).strip(" ?!.").encode(), digest_size=12).digest()
        if not reason and key in seen:
            reason = "question asked before"
        if reason:
            yield rejected(index, reason, candidate.question)
            continue
        seen.add(key)
        yield record(
            "conversation",
            file=source["file"],
            format=FORMAT,
            line=source["line"],
            offset=(source["offset"] or 0) + passage.offset,
            messages=[message("user", candidate.question.strip()), message("assistant", candidate.answer.strip())],
            text=passage.text,
            group=document["id"],
            language=document["language"],
            synthetic=True,
            tags=["synthetic", "grounded", *given_tags(document)],
        )


def _key(model: str, messages: Sequence[Message]) -> str:
    return hashlib.sha256(f"{model}\0{json.dumps(messages, sort_keys=True)}".encode()).hexdigest()


class _Replies:
    """Replies by key in a JSON Lines file, each flushed to disk as it comes; half a last line is passed over."""

    def __init__(self, path: Path | None) -> None:
        self._places: dict[str, int] = {}
        self._file = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b")  # noqa: SIM115  closed by close()
        os.chmod(path, 0o600)  # it holds people's text
        self._file.seek(0)
        place, line = 0, b"\n"
        for line in self._file:
            with suppress(ValueError, KeyError, TypeError):
                self._places[json.loads(line)["key"]] = place
            place += len(line)
        if not line.endswith(b"\n"):
            self._file.write(b"\n")

    @property
    def kept(self) -> bool:
        """Is there a file?"""
        return self._file is not None

    def get(self, key: str) -> tuple[bool, str | None]:
        """Whether there is a reply, and which."""
        if self._file is None or (place := self._places.get(key)) is None:
            return False, None
        with open(self._file.name, "rb") as file:
            file.seek(place)
            reply = json.loads(file.readline())["reply"]
        return True, reply

    def put(self, key: str, reply: str | None) -> None:
        """Keep a reply; one write call a line, so that threads do not mix theirs."""
        if self._file is not None:
            line = json.dumps({"key": key, "reply": reply}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
