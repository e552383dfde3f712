"""A client of OpenAI's API that costs little, since it computes on the cores of the server that is measured."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

KEPT_BYTES = 8192  # of the end of an answer: usage and the mark of the end stand there
PATIENCE_SECONDS = 900.0
FIRST = re.compile(rb'"(?:content|text)":\s*"[^"]')  # the first piece of text that is not empty
COUNTED = re.compile(rb'"completion_tokens":\s*(\d+)')


@dataclass(frozen=True)
class Place:
    """Where a server listens, what it is asked for, and what stands at the end of a stream of it (spaces aside)."""

    port: int
    key: str
    model: str
    path: str = "/v1/chat/completions"
    end: bytes = b"data:[DONE]"


@dataclass(frozen=True)
class Answered:
    """What came of a request. ``status`` 0: the connection broke. ``first``: seconds to the first text; None: none
    came, or nobody looked. ``whole``: it came to its end, without an error in the middle."""

    status: int
    tokens: int
    first: float | None
    seconds: float
    whole: bool


@dataclass(frozen=True)
class Round:
    """Some answers at once: all their tokens, seconds from the first request to the last end, and the median of the
    seconds to the first text (None where nobody can tell)."""

    tokens: int
    seconds: float
    first: float | None

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


async def ask(place: Place, body: dict[str, Any], *, path: str | None = None, leave: float | None = None) -> Answered:
    """One request on a connection of its own. ``leave``: hang up so many seconds after the first bytes of the answer;
    a negative one: so many seconds after the request was sent."""
    data = json.dumps(body).encode()
    started = time.perf_counter()
    seen = b""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        try:
            writer.write(head(place, len(data), path or place.path) + data)
            first = None
            async with asyncio.timeout(PATIENCE_SECONDS if leave is None or leave >= 0 else -leave):
                while part := await reader.read(65536):
                    seen = seen + part if len(seen) < KEPT_BYTES else seen[:64] + seen[-KEPT_BYTES:] + part
                    if first is None and FIRST.search(part):
                        first = time.perf_counter() - started
                    if leave is not None and leave >= 0 and first is not None:
                        await asyncio.sleep(leave)
                        break
        finally:
            writer.close()
    except (OSError, TimeoutError):
        if leave is None:
            return Answered(0, 0, None, time.perf_counter() - started, whole=False)
        first = None
    return read(seen, first, time.perf_counter() - started, is_stream=bool(body.get("stream")), end=place.end)


def head(place: Place, length: int, path: str) -> bytes:
    """Line and headers of a POST."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{place.port}\r\nauthorization: Bearer {place.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    ).encode()


def read(
    seen: bytes, first: float | None, seconds: float, *, is_stream: bool, end: bytes = Place.end
) -> Answered:  # fmt: skip
    """What the bytes of an answer say.

    >>> read(b'HTTP/1.1 429 Too Many Requests\\r\\n\\r\\n{}', None, 0.5, is_stream=False)
    Answered(status=429, tokens=0, first=None, seconds=0.5, whole=True)
    """
    found = re.match(rb"HTTP/1\.1 (\d{3})", seen)
    status = 0 if found is None else int(found[1])
    counted = COUNTED.findall(seen)
    whole = found is not None
    if status == 200:
        whole = (
            end in seen.replace(b" ", b"") if is_stream else seen.rstrip()[-1:] in (b"}", b"0")
        )  # 0: of a last chunk
        whole = whole and b'"error":{' not in seen.replace(b" ", b"")
    return Answered(status, int(counted[-1]) if counted else 0, first, seconds, whole)


async def ask_all(place: Place, bodies: Sequence[dict[str, Any]]) -> list[Answered]:
    """All at once."""
    return list(await asyncio.gather(*(ask(place, body) for body in bodies)))


def timed(place: Place, bodies: Sequence[dict[str, Any]]) -> Round:
    """All at once, as one figure. Raises :class:`RuntimeError` where one of them failed."""
    started = time.perf_counter()
    answers = asyncio.run(ask_all(place, bodies))
    seconds = time.perf_counter() - started
    for answer in answers:
        if answer.status != 200 or not answer.whole or not answer.tokens:
            raise RuntimeError(f"an answer failed: status {answer.status}, {answer.tokens} tokens")
    firsts = sorted(answer.first for answer in answers if answer.first is not None)
    return Round(sum(answer.tokens for answer in answers), seconds, firsts[len(firsts) // 2] if firsts else None)
