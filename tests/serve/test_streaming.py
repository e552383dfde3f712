"""The bridge from an engine's thread: nothing is lost, and the thread ends when nobody listens any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from ownchat.serve.asking import Progress
from ownchat.serve.errors import ApiError
from ownchat.serve.settings import Settings
from ownchat.serve.streaming import BUFFERED, WAITING, Answering, event, unless_gone

Make = Callable[[Event], Iterator[int]]


class Source:
    """Numbers without an end, until it is told to stop; ``closed`` once it let go."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = threading.Event()

    def __call__(self, cancel: Event) -> Iterator[int]:
        try:
            while not cancel.is_set():
                self.made += 1
                yield self.made
        finally:
            self.closed.set()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def made(make: Make, *, deadline: float = 60, **settings: Any) -> Answering[int]:
    return Answering(make, Settings(home=Path("/nowhere"), **settings), deadline=time.monotonic() + deadline)


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_all_items_come_in_order() -> None:
    async def test() -> None:
        answering = made(lambda cancel: iter(range(1000)))
        found = []
        while (item := await answering.get()) is not None:
            found.append(item)
        assert found == list(range(1000))
        await answering.close()

    run(test)


def test_what_was_raised_is_raised_again() -> None:
    def make(cancel: Event) -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    async def test() -> None:
        answering = made(make)
        assert await answering.get() == 1
        with pytest.raises(ValueError, match="broken"):
            await answering.get()
        await answering.close()

    run(test)


def test_closing_ends_the_thread() -> None:
    async def test() -> None:
        source = Source()
        answering = made(source)
        assert await answering.get() == 1
        await answering.close()
        assert source.closed.is_set()

    run(test)


def test_a_reader_who_takes_nothing_is_not_worked_for() -> None:
    async def test() -> None:
        source = Source()
        answering = made(source, idle_seconds=0.2)
        await until(source.closed.is_set)
        assert source.made <= BUFFERED + 1, "no more than the buffer holds"
        await answering.close()

    run(test)


def test_deadlines_end_an_answer() -> None:
    def silent(cancel: Event) -> Iterator[int]:
        cancel.wait(30)
        yield from ()

    def stuck(cancel: Event) -> Iterator[int]:
        yield 1
        cancel.wait(30)

    async def test() -> None:
        for make, settings, first in (
            (silent, {"deadline": 0.1}, None), (silent, {"first_token_seconds": 0.1}, None),
            (stuck, {"idle_seconds": 0.1}, 1),
        ):  # fmt: skip
            answering = made(make, **settings)  # type: ignore[arg-type]
            if first is not None:
                assert await answering.get() == first
                answering.progress.token()
            with pytest.raises(ApiError) as caught:
                await answering.get()
            assert caught.value.status == 504 and caught.value.headers == {"x-should-retry": "false"}
            await answering.close()

    run(test)


def test_an_engine_that_works_is_waited_for() -> None:
    """A forced call is given out as a whole: its tokens keep it alive."""

    async def test(wait_seconds: float | None) -> None:
        progress = Progress()

        def quiet(cancel: Event) -> Iterator[int]:
            yield 1
            for _ in range(20):
                progress.token()
                cancel.wait(0.1)
            yield 2
            cancel.wait(30)

        settings = Settings(home=Path("/nowhere"), idle_seconds=1)
        answering = Answering(quiet, settings, deadline=time.monotonic() + 60, progress=progress)
        assert await answering.get() == 1
        while (item := await answering.get(wait_seconds)) is WAITING:
            pass
        assert item == 2
        with pytest.raises(ApiError):  # also one who looks often is told when it has died
            while await answering.get(wait_seconds) is WAITING:
                pass
        await answering.close()

    for wait_seconds in (None, 0.05):
        asyncio.run(test(wait_seconds))


def test_waiting_loses_nothing() -> None:
    def slow(cancel: Event) -> Iterator[int]:
        cancel.wait(0.2)
        yield 1

    async def test() -> None:
        answering = made(slow)
        waited = 0
        while (item := await answering.get(0.01)) is WAITING:
            waited += 1
        assert waited and item == 1 and await answering.get() is None
        await answering.close()

    run(test)


def test_work_is_left_when_the_client_leaves() -> None:
    async def test() -> None:
        cancelled = asyncio.Event()

        async def work() -> int:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return 1

        async def leave() -> Any:
            return {"type": "http.disconnect"}

        async def stay() -> Any:
            await asyncio.sleep(30)

        assert await unless_gone(work(), leave) is None and cancelled.is_set()
        assert await unless_gone(asyncio.sleep(0, 7), stay) == 7

    run(test)


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    assert event({"text": "a\n\ndata: [DONE]\r\n\x85\u2028"}).count(b"\n") == 2


def test_one_answer_ends_with_the_request_and_not_the_other_way_round() -> None:
    from ownchat.serve.answers import OwnCancel

    whole = Event()
    first, second = OwnCancel(whole), OwnCancel(whole)
    first.set()
    assert first.is_set() and not second.is_set() and not whole.is_set()
    whole.set()
    assert second.is_set()
