"""Who may run now, who waits, and who is sent away: slots, a bounded queue, and limits for each key.

All of it lives on the server's event loop and needs no lock. What is bounded here: answers being made (``slots``),
requests and tokens that wait for one (``queue``, ``queue_tokens``), and requests and tokens of a key in a minute.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import Request

from ownchat.serve.errors import ApiError
from ownchat.serve.keys import Caller
from ownchat.serve.settings import Settings

LOOK_SECONDS = 0.25  # between looks whether somebody who waits has left
MOST_BUCKETS = 10_000  # keys whose use is remembered; more than are in use in any minute
SMOOTHING = 0.1  # weight of the newest answer in the mean of how long they take


@dataclass
class Bucket:
    """A limit of so much in a minute that refills steadily (token bucket); ``level`` may be spent at once."""

    limit: int
    level: float
    seen: float

    def refill(self, now: float) -> None:
        """Bring the level up to ``now``."""
        self.level = min(float(self.limit), self.level + (now - self.seen) * self.limit / 60)
        self.seen = now

    def seconds_until(self, amount: float) -> float:
        """How long until ``amount`` is there; infinite for more than the limit."""
        if amount > self.limit:
            return math.inf
        return max(0.0, (amount - self.level) * 60 / self.limit)


@dataclass
class Place:
    """One running answer. ``deadline``: a ``time.monotonic()`` at which it has to be over."""

    deadline: float
    tokens: int
    waited_seconds: float
    _buckets: list[Bucket] = field(default_factory=list, repr=False)

    def used(self, tokens: int) -> None:
        """Say how many tokens it really took, once: of a key's limit the rest is given back."""
        for bucket in self._buckets:
            bucket.level = min(float(bucket.limit), bucket.level + self.tokens - tokens)
        self._buckets = []


class Gone(Exception):
    """The client left while it waited: there is nobody to answer."""


class Admission:
    """Hands out the slots of one server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._limits: dict[str, tuple[Bucket | None, Bucket | None]] = {}
        self._mean_seconds = 1.0
        self.running = 0
        self.waiting_tokens = 0
        self.draining = False

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def drain(self) -> None:
        """Admit nobody any more, and send those away who wait. Call it on the event loop."""
        self.draining = True
        while self._waiting:
            future, tokens = self._waiting.popleft()
            self.waiting_tokens -= tokens
            if not future.done():
                future.set_exception(_draining())

    @asynccontextmanager
    async def place(self, caller: Caller, *, tokens: int, request: Request | None = None) -> AsyncIterator[Place]:
        """A slot for one answer of at most ``tokens`` tokens, prompt and answer together; waits in turn.

        With ``request`` a client that hangs up loses its place in the queue. Raises
        :class:`~ownchat.serve.errors.ApiError`: 429 for a full queue or a key's limit (``retry-after``), 503 while the
        server goes down; and :class:`Gone`.
        """
        started = time.monotonic()
        if self.draining:
            raise _draining()
        buckets = self._spend(caller, tokens)
        place = Place(started + self._settings.deadline_seconds, tokens, 0.0, buckets)
        try:
            await self._enter(tokens, place.deadline, request)
        except BaseException:
            place.used(0)
            raise
        begun = time.monotonic()
        place.waited_seconds = begun - started
        try:
            yield place
        finally:
            self._mean_seconds += SMOOTHING * (time.monotonic() - begun - self._mean_seconds)
            self._leave()

    def headers(self, caller: Caller) -> dict[str, str]:
        """What OpenAI tells of a key's limits; nothing where there is none."""
        found: dict[str, str] = {}
        for name, bucket in zip(("requests", "tokens"), self._buckets(caller), strict=True):
            if bucket is not None:
                bucket.refill(time.monotonic())
                found[f"x-ratelimit-limit-{name}"] = str(bucket.limit)
                found[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.level)))
                found[f"x-ratelimit-reset-{name}"] = f"{bucket.seconds_until(bucket.limit):.3f}s"
        return found

    # ------------------------------------------------------------------------------------------------- slots

    async def _enter(self, tokens: int, deadline: float, request: Request | None) -> None:
        if self.running < self._settings.slots and not self._waiting:
            self.running += 1
            return
        if self.waiting >= self._settings.queue or self.waiting_tokens + tokens > self._settings.queue_tokens:
            raise self._full()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, tokens))
        self.waiting_tokens += tokens
        try:
            while not future.done():
                await asyncio.wait([future], timeout=LOOK_SECONDS)
                if future.done():
                    break
                if request is not None and await request.is_disconnected():
                    raise Gone
                if time.monotonic() >= deadline:
                    raise self._full()
            future.result()  # of drain() an exception
        except BaseException:
            self._give_up(future, tokens)
            raise

    def _give_up(self, future: asyncio.Future[None], tokens: int) -> None:
        """Somebody who waited waits no more: out of the queue, or, if the slot has just come, on to the next."""
        if (future, tokens) in self._waiting:
            self._waiting.remove((future, tokens))
            self.waiting_tokens -= tokens
        elif future.done() and not future.cancelled() and future.exception() is None:
            self._leave()

    def _leave(self) -> None:
        """A slot is free: the next in the queue has it, so that nobody can slip in between."""
        while self._waiting:
            future, tokens = self._waiting.popleft()
            self.waiting_tokens -= tokens
            if not future.done():
                future.set_result(None)
                return
        self.running -= 1

    def _full(self) -> ApiError:
        seconds = min(60.0, max(1.0, self._mean_seconds * (self.waiting + 1) / self._settings.slots))
        return ApiError(
            429, "the server is busy and its queue is full; try again later", code="rate_limit_exceeded",
            type="rate_limit_error", headers=_retry_after(seconds),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------ limits

    def _buckets(self, caller: Caller) -> tuple[Bucket | None, Bucket | None]:
        if caller.key_id not in self._limits:
            now = time.monotonic()
            limits = (self._settings.requests_per_minute, self._settings.tokens_per_minute)
            if len(self._limits) >= MOST_BUCKETS:
                self._limits.pop(next(iter(self._limits)))  # the oldest: of keys that come and go it is full again
            requests, tokens = (None if limit is None else Bucket(limit, float(limit), now) for limit in limits)
            self._limits[caller.key_id] = (requests, tokens)
        return self._limits[caller.key_id]

    def _spend(self, caller: Caller, tokens: int) -> list[Bucket]:
        """Take a request and its tokens off the key's limits, both or neither; the bucket that may get some back."""
        now = time.monotonic()
        kinds = zip(self._buckets(caller), (1, tokens), ("requests", "tokens"), strict=True)
        wanted = [(bucket, amount, of) for bucket, amount, of in kinds if bucket is not None]
        for bucket, amount, of in wanted:
            bucket.refill(now)
            if bucket.level < amount:
                raise _limited(bucket, amount, self.headers(caller), of)
        for bucket, amount, _ in wanted:
            bucket.level -= amount
        return [bucket for bucket, _, of in wanted if of == "tokens"]


def _limited(bucket: Bucket, amount: float, headers: dict[str, str], of: str) -> ApiError:
    seconds = bucket.seconds_until(amount)
    if math.isinf(seconds):
        return ApiError(
            429, f"{amount} {of} are more than the limit of this key, {bucket.limit} a minute: ask for fewer",
            code="rate_limit_exceeded", headers={**headers, "x-should-retry": "false"},
        )  # fmt: skip
    return ApiError(
        429, f"the limit of this key is reached: {bucket.limit} {of} a minute", code="rate_limit_exceeded",
        headers={**headers, **_retry_after(seconds)},
    )  # fmt: skip


def _retry_after(seconds: float) -> dict[str, str]:
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}


def _draining() -> ApiError:
    return ApiError(
        503, "the server is going down; try again, another one may answer", code="server_is_overloaded",
        headers=_retry_after(2),
    )  # fmt: skip
