"""Slots, the queue, and limits of keys: what is admitted, in which order, and what is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from ownchat.serve import admission as module
from ownchat.serve.admission import Admission, Gone
from ownchat.serve.errors import ApiError
from ownchat.serve.keys import Caller
from ownchat.serve.settings import Settings

ANNA = Caller("key_a", "anna", frozenset({"infer"}))
BEN = Caller("key_b", "ben", frozenset({"infer"}))


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def made(**settings: Any) -> Admission:
    return Admission(Settings(home=Path("unused"), **settings))


async def held(admission: Admission, release: asyncio.Event, order: list[str], name: str, **more: Any) -> None:
    async with admission.place(ANNA, tokens=more.pop("tokens", 10), **more):
        order.append(name)
        await release.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_no_more_run_than_there_are_slots_and_they_come_in_turn() -> None:
    async def work() -> None:
        admission, order = made(slots=2), list[str]()
        gates = [asyncio.Event() for _ in range(5)]
        tasks = [asyncio.create_task(held(admission, gates[n], order, str(n))) for n in range(5)]
        await settle()
        assert order == ["0", "1"] and (admission.running, admission.waiting, admission.waiting_tokens) == (2, 3, 30)
        gates[1].set()
        await settle()
        assert order == ["0", "1", "2"] and admission.running == 2
        for gate in gates:
            gate.set()
        await asyncio.gather(*tasks)
        assert order == ["0", "1", "2", "3", "4"]
        assert (admission.running, admission.waiting, admission.waiting_tokens) == (0, 0, 0)

    run(work())


@pytest.mark.parametrize("limits", [{"queue": 1}, {"queue_tokens": 15}, {"queue": 0}])
def test_a_full_queue_is_429_with_a_time_to_come_back(limits: dict[str, int]) -> None:
    async def work() -> None:
        admission, gate = made(slots=1, **limits), asyncio.Event()
        room = 1 if limits.get("queue") != 0 else 0
        tasks = [asyncio.create_task(held(admission, gate, [], str(n))) for n in range(1 + room)]
        await settle()
        with pytest.raises(ApiError) as refused:
            async with admission.place(BEN, tokens=10):
                pytest.fail("admitted")
        assert refused.value.status == 429 and refused.value.code == "rate_limit_exceeded"
        assert int(refused.value.headers["retry-after"]) >= 1
        assert int(refused.value.headers["retry-after-ms"]) >= 1000
        gate.set()
        await asyncio.gather(*tasks)

    run(work())


def test_who_gives_up_waiting_leaves_the_queue() -> None:
    async def work() -> None:
        admission, gate, order = made(slots=1), asyncio.Event(), list[str]()
        tasks = [asyncio.create_task(held(admission, gate, order, str(n))) for n in range(3)]
        await settle()
        tasks[1].cancel()
        await settle()
        assert (admission.waiting, admission.waiting_tokens) == (1, 10)
        gate.set()
        await asyncio.gather(tasks[0], tasks[2])
        assert order == ["0", "2"] and admission.running == 0

    run(work())


def test_a_slot_that_comes_to_somebody_who_just_left_goes_on_to_the_next() -> None:
    async def work() -> None:
        admission, order = made(slots=1), list[str]()
        gates = [asyncio.Event() for _ in range(3)]
        tasks = [asyncio.create_task(held(admission, gates[n], order, str(n))) for n in range(3)]
        await settle()
        gates[0].set()
        while not tasks[0].done():
            await asyncio.sleep(0)
        tasks[1].cancel()  # its slot has been given, and perhaps not been taken yet
        gates[2].set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order[-1] == "2" and (admission.running, admission.waiting) == (0, 0)

    run(work())


def test_an_exception_in_a_place_frees_it() -> None:
    async def work() -> None:
        admission = made(slots=1)
        with pytest.raises(KeyError):
            async with admission.place(ANNA, tokens=1):
                raise KeyError
        assert admission.running == 0

    run(work())


class Request:
    """What admission asks of a request."""

    async def is_disconnected(self) -> bool:
        return True


def test_who_hangs_up_while_waiting_loses_the_place() -> None:
    async def work() -> None:
        admission, gate = made(slots=1), asyncio.Event()
        first = asyncio.create_task(held(admission, gate, [], "0"))
        await settle()
        with pytest.raises(Gone):
            await held(admission, gate, [], "1", request=Request())
        assert admission.waiting == 0
        gate.set()
        await first

    run(work())


def test_the_deadline_counts_the_wait() -> None:
    async def work() -> None:
        admission, gate = made(slots=1, deadline_seconds=0), asyncio.Event()
        first = asyncio.create_task(held(admission, gate, [], "0"))
        await settle()
        with pytest.raises(ApiError) as refused:
            await held(admission, gate, [], "1")
        assert refused.value.status == 429
        gate.set()
        await first

    run(work())


def test_draining_lets_what_runs_go_on_and_sends_the_rest_away() -> None:
    async def work() -> None:
        admission, gate, order = made(slots=1), asyncio.Event(), list[str]()
        tasks = [asyncio.create_task(held(admission, gate, order, str(n))) for n in range(2)]
        await settle()
        admission.drain()
        with pytest.raises(ApiError) as refused:
            await tasks[1]
        assert refused.value.status == 503 and "retry-after" in refused.value.headers
        with pytest.raises(ApiError):
            await held(admission, gate, order, "2")
        assert admission.running == 1
        gate.set()
        await tasks[0]
        assert order == ["0"] and (admission.running, admission.waiting, admission.waiting_tokens) == (0, 0, 0)

    run(work())


def test_requests_of_a_key_in_a_minute_are_limited_and_those_of_another_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    limiting = made(requests_per_minute=2)

    async def one(caller: Caller) -> None:
        async with limiting.place(caller, tokens=1):
            pass

    async def work() -> None:
        await one(ANNA)
        await one(ANNA)
        with pytest.raises(ApiError) as refused:
            await one(ANNA)
        headers = refused.value.headers
        assert refused.value.status == 429 and headers["retry-after"] == "30" and headers["retry-after-ms"] == "30000"
        assert headers["x-ratelimit-limit-requests"] == "2" and headers["x-ratelimit-remaining-requests"] == "0"
        await one(BEN)
        now[0] += 30
        await one(ANNA)
        with pytest.raises(ApiError):
            await one(ANNA)

    asyncio.run(work())


def test_tokens_that_were_not_used_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "monotonic", lambda: 1000.0)

    async def work() -> None:
        admission = made(tokens_per_minute=100)
        async with admission.place(ANNA, tokens=90) as place:
            with pytest.raises(ApiError):
                async with admission.place(ANNA, tokens=20):
                    pytest.fail("admitted")
            place.used(30)
            place.used(0)  # only the first counts
        assert admission.headers(ANNA)["x-ratelimit-remaining-tokens"] == "70"
        async with admission.place(ANNA, tokens=70):
            pass

    asyncio.run(work())


def test_more_tokens_than_the_limit_are_not_to_be_tried_again() -> None:
    async def work() -> None:
        with pytest.raises(ApiError) as refused:
            async with made(tokens_per_minute=100).place(ANNA, tokens=101):
                pytest.fail("admitted")
        assert refused.value.status == 429 and refused.value.headers["x-should-retry"] == "false"

    run(work())


def test_a_request_that_is_refused_costs_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "monotonic", lambda: 1000.0)

    async def work() -> None:
        admission = made(slots=1, queue=0, tokens_per_minute=100)
        async with admission.place(BEN, tokens=1):
            with pytest.raises(ApiError):
                async with admission.place(ANNA, tokens=60):
                    pytest.fail("admitted")
        assert admission.headers(ANNA)["x-ratelimit-remaining-tokens"] == "100"

    asyncio.run(work())
