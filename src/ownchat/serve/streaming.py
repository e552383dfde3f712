"""From the thread in which an engine answers to the client: a bounded queue between, and everything let go in time.

An engine is synchronous. Each running answer has a thread; what it makes goes through :class:`Answering` to the event
loop. When the client hangs up, is too slow or a deadline passes, an event is set to which the engine listens: the
slot is free within a token.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from threading import BoundedSemaphore, Event, Thread
from typing import Any, Generic, TypeVar

import anyio
import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ownchat.serve.asking import Progress
from ownchat.serve.errors import ApiError
from ownchat.serve.settings import Settings

BUFFERED = 64  # pieces between an engine and a reader who is slower
LOOK_SECONDS = 0.1  # between looks of a thread that waits for a slow reader
PING_SECONDS = 15.0  # a comment so often, while nothing else comes: proxies close what is silent
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class Waiting:
    """What :meth:`Answering.get` returns when nothing came in the time it was given."""


WAITING = Waiting()


class Answering(Generic[T]):
    """``make(cancel)`` iterated in a thread of its own; its items come out of :meth:`get`, in their order.

    ``deadline`` is a ``time.monotonic()``. :meth:`close` has to be called, whatever happened; it returns when the
    thread has ended, and with it everything that ``make`` holds. ``progress`` is where ``make`` tells that it works:
    what comes out may be far apart all the same.
    """

    def __init__(
        self, make: Callable[[Event], Iterator[T]], settings: Settings, *, deadline: float,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.cancel = Event()
        self.progress = Progress() if progress is None else progress
        self._settings, self._deadline = settings, deadline
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[T | _End] = asyncio.Queue()
        self._room = BoundedSemaphore(BUFFERED)
        self._over = asyncio.Event()
        self._thread = Thread(target=self._run, args=(make,), name="answer", daemon=True)
        self._thread.start()

    # --------------------------------------------------------------------------------------- in the thread

    def _run(self, make: Callable[[Event], Iterator[T]]) -> None:
        error: BaseException | None = None
        try:
            items = make(self.cancel)
            try:
                for item in items:
                    if not self._put(item):
                        break
            finally:
                close: Callable[[], None] | None = getattr(items, "close", None)
                if close is not None:
                    close()
        except BaseException as caught:  # raised again on the loop
            error = caught
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._finish, _End(error))

    def _put(self, item: T) -> bool:
        """Hand over; false when nobody wants more."""
        patience = time.monotonic() + self._settings.idle_seconds
        full = False
        while not self._room.acquire(timeout=LOOK_SECONDS):
            full = True
            if self.cancel.is_set():
                return False
            if time.monotonic() > patience:  # a reader who takes nothing holds a slot that others wait for
                self.cancel.set()
                return False
        if self.cancel.is_set():
            return False
        if full:  # for so long nobody could expect a token
            self.progress.token()
        self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        return True

    def _finish(self, end: _End) -> None:
        self._items.put_nowait(end)
        self._over.set()

    # ----------------------------------------------------------------------------------------- on the loop

    async def get(self, wait_seconds: float | None = None) -> T | Waiting | None:
        """The next item; :data:`WAITING` after ``wait_seconds`` without one; ``None`` at the end.

        Raises what ``make`` raised, and :class:`~ownchat.serve.errors.ApiError` 504 when a deadline has passed.
        """
        until = math.inf if wait_seconds is None else time.monotonic() + wait_seconds
        while True:
            limit = min(self._deadline, self._silent_until())  # moves on while we wait
            patience = min(limit, until) - time.monotonic()
            if patience <= 0 and self._items.empty():
                if until < limit:
                    return WAITING
                self.cancel.set()
                raise _too_late()
            if not self._items.empty():
                item = self._items.get_nowait()
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    item = await self._items.get()
                break
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return None
        self._room.release()
        return item

    def _silent_until(self) -> float:
        return self.progress.deadline(
            first_token_seconds=self._settings.first_token_seconds, idle_seconds=self._settings.idle_seconds
        )

    async def close(self) -> None:
        """End the answer, if it has not ended, and wait until its thread has: then the slot is free."""
        self.cancel.set()
        with anyio.CancelScope(shield=True):
            await self._over.wait()


def _too_late() -> ApiError:
    # Asked again by itself, an SDK would wait as long once more, and the slot with it.
    return ApiError(
        504, "the answer took too long and was ended: ask for fewer tokens, or stream it", code="deadline_exceeded",
        headers={"x-should-retry": "false"},
    )  # fmt: skip


async def gone(receive: Receive) -> None:
    """Return when the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(work: Awaitable[T], receive: Receive) -> T | None:
    """The result of ``work``; ``None``, and it is cancelled, when the client hangs up before."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, watch):
            one.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event. JSON has no line break outside of strings, and inside they are escaped.

    >>> event({"a": "b\\nc"}, "x")
    b'event: x\\ndata: {"a":"b\\\\nc"}\\n\\n'
    """
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


def error_event(error: ApiError) -> bytes:
    """The event that makes the SDK raise in the middle of a stream."""
    return event(error.body())


class EventStream(Response):
    """A response of server-sent events. ``close`` runs at the end, also when the client hangs up before."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[bytes], close: Callable[[], Awaitable[None]], headers: dict[str, str]
    ) -> None:  # fmt: skip
        self.status_code, self.background, self.body = 200, None, b""
        self._events, self._close = events, close
        # no-transform and x-accel-buffering: proxies that gather a stream to compress it would undo it
        self.init_headers({**headers, "cache-control": "no-store, no-transform", "x-accel-buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as they come."""
        try:
            await unless_gone(self._send(send), receive)
        finally:
            with anyio.CancelScope(shield=True):
                await self._close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._events:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
