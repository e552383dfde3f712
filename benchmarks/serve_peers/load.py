"""More than a server has room for: a thousand at once, minutes of mixed load, clients that vanish."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from serve_peers.client import Answered, ask, ask_all
from serve_peers.sides import Served

LOOK_SECONDS = 0.02  # between two looks whether slots are free
FREE_SECONDS = 30.0  # a slot that is not free by then counts as lost
SAMPLE_SECONDS = 1.0  # between two looks at memory
PAUSE_SECONDS = 0.5  # of a client that was told to come later
GROWTH = 0.05  # of memory, from the first third of the time to the last, that is still flat
SCHEMA = {"type": "object", "properties": {"ship": {"type": "string", "maxLength": 20}}, "required": ["ship"]}
OVERLOADED = 429
SERVED = (200, OVERLOADED)
LEFT = (0, 200, OVERLOADED)  # of a client that hung up: as far as it came


def burst(served: Served, number: int, waves: int, tokens: int) -> dict[str, Any]:
    """``number`` requests at once, ``waves`` times: statuses, and memory after each wave."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection each
    counts: Counter[int] = Counter()
    failures, memory, seconds = 0, [], []
    for wave in range(waves):
        bodies = [served.body(f"{wave} {one}: hello", tokens, stream=False) for one in range(number)]
        for body in bodies:
            del body["stream_options"]
        started = time.perf_counter()
        answers = asyncio.run(ask_all(served.place, bodies))
        seconds.append(round(time.perf_counter() - started, 2))
        counts.update(answer.status for answer in answers)
        failures += sum(answer.status not in SERVED or not answer.whole for answer in answers)
        memory.append(served.process.resident_bytes())
    return {
        "requests": number, "waves": waves, "statuses": {str(key): count for key, count in sorted(counts.items())},
        "failures": failures, "seconds": seconds, "memory_mb": [round(size / 1e6, 1) for size in memory],
        "free_seconds": round(seconds_until_free(served), 3),
    }  # fmt: skip


def seconds_until_free(served: Served) -> float:
    """How long from now until no answer is being made and nobody waits; 30 or more: it did not come."""
    started = time.perf_counter()
    while True:
        num_at_work = served.num_at_work()
        waited = time.perf_counter() - started
        if num_at_work == 0 or waited > FREE_SECONDS:
            return waited
        time.sleep(LOOK_SECONDS)


def vanish(served: Served, times: int, long: str) -> dict[str, Any]:
    """Clients that hang up after the first piece of a stream, while a whole answer is made, and within a long prompt;
    ``seconds`` until their slot is free: the median, and the longest."""
    found: dict[str, list[float]] = {"stream": [], "whole": [], "prompt": []}
    for number in range(times):
        asyncio.run(ask(served.place, served.body(f"{number}: tell me", 4000), leave=0.0))
        found["stream"].append(seconds_until_free(served))
        whole = served.body(f"{number}: tell me all", 4000, stream=False)
        del whole["stream_options"]
        for kind, body in (("whole", whole), ("prompt", served.body(f"{number} {long}", 4000))):
            asyncio.run(_hang_up(served, body))
            found[kind].append(seconds_until_free(served))
    return {
        kind: {"median": round(statistics.median(seconds), 3), "longest": round(max(seconds), 3)}
        for kind, seconds in found.items()
    }


async def _hang_up(served: Served, body: dict[str, Any]) -> None:
    """Ask, and leave as soon as the server is at work. Raises :class:`RuntimeError` where it was done before."""
    asking = asyncio.create_task(ask(served.place, body))
    while await asyncio.to_thread(served.num_at_work) == 0:
        if asking.done():
            raise RuntimeError(f"it was answered before its client could leave: {asking.result()}")
        await asyncio.sleep(LOOK_SECONDS)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking


# --------------------------------------------------------------------------------------------------- mixed load


Kind = tuple[str, dict[str, Any], str | None, float | None, tuple[int, ...]]  # name, body, path, leave, right statuses


def kinds_of(served: Served, long: str) -> list[tuple[int, Callable[[random.Random], Kind]]]:
    """What clients do, with how often."""

    def chat(draw: random.Random, *, stream: bool, text: str = "", **more: Any) -> dict[str, Any]:
        body = served.body(f"{draw.random()} {text or 'tell me a story'}", draw.choice((8, 32, 64)), stream=stream)
        if not stream:
            del body["stream_options"]
        return body | {"temperature": 0.8} | more

    schema = {"type": "json_schema", "json_schema": {"name": "ship", "schema": SCHEMA, "strict": True}}
    complete = {"model": served.place.model, "max_tokens": 8, "logprobs": 2}
    unknown = {"model": "there-is-none", "messages": [{"role": "user", "content": "hello"}]}
    return [
        (8, lambda draw: ("stream", chat(draw, stream=True), None, None, SERVED)),
        (6, lambda draw: ("whole", chat(draw, stream=False), None, None, SERVED)),
        (1, lambda draw: ("two", chat(draw, stream=False, n=2), None, None, SERVED)),
        (1, lambda draw: ("stored", chat(draw, stream=False, store=True), None, None, SERVED)),
        (1, lambda draw: ("scored", chat(draw, stream=True, logprobs=True, top_logprobs=3), None, None, SERVED)),
        (1, lambda draw: ("schema", chat(draw, stream=False, response_format=schema), None, None, SERVED)),
        (1, lambda draw: ("long", chat(draw, stream=True, text=long), None, None, SERVED)),
        (2, lambda draw: ("text", complete | {"prompt": f"{draw.random()} ships"}, "/v1/completions", None, SERVED)),
        (1, lambda draw: ("no model", unknown, None, None, (404,))),
        (1, lambda draw: ("no question", {"model": served.place.model}, None, None, (400,))),
        (2, lambda draw: ("vanishes in a stream", chat(draw, stream=True), None, 0.0, LEFT)),
        (1, lambda draw: ("vanishes early", chat(draw, stream=False), None, -0.3, LEFT)),
    ]


async def _client(
    served: Served, number: int, end: float, long: str, told: Callable[[str, Answered, bool], None]
) -> None:  # fmt: skip
    draw = random.Random(number)
    kinds = kinds_of(served, long)
    weights = [weight for weight, _ in kinds]
    while time.monotonic() < end:
        name, body, path, leave, right = draw.choices([make for _, make in kinds], weights)[0](draw)
        answer = await ask(served.place, body, path=path, leave=leave)
        told(name, answer, answer.status in right and (answer.whole or leave is not None))
        if answer.status == OVERLOADED:
            await asyncio.sleep(PAUSE_SECONDS)


async def _flood(served: Served, number: int, seconds: float, times: int, told: Any) -> None:
    """A few times within the load more requests at once than the queue takes."""
    for time_ in range(times):
        await asyncio.sleep(seconds / (times + 1))
        bodies = [served.body(f"{time_} {one}: hello", 4) for one in range(number)]
        for answer in await ask_all(served.place, bodies):
            told("flood", answer, answer.status in SERVED and answer.whole)


async def _watch(served: Served, end: float, sizes: list[int]) -> None:
    while time.monotonic() < end:
        sizes.append(served.process.resident_bytes())
        await asyncio.sleep(SAMPLE_SECONDS)


def soak(served: Served, minutes: float, clients: int, flood: int, long: str) -> dict[str, Any]:
    """Mixed load for some minutes. What is neither answered nor refused as it should be is a failure."""
    counts: dict[str, Counter[int]] = {}
    failures: list[dict[str, Any]] = []
    tokens, waits, sizes = 0, list[float](), list[int]()

    def told(name: str, answer: Answered, right: bool) -> None:
        nonlocal tokens
        counts.setdefault(name, Counter())[answer.status] += 1
        tokens += answer.tokens
        if answer.first is not None:
            waits.append(answer.first)
        if not right:
            failures.append({"kind": name, "status": answer.status, "whole": answer.whole})

    async def run() -> None:
        end = time.monotonic() + minutes * 60
        await asyncio.gather(
            _watch(served, end, sizes), _flood(served, flood, minutes * 60, 3, told),
            *(_client(served, number, end, long, told) for number in range(clients)),
        )  # fmt: skip

    started = time.perf_counter()
    asyncio.run(run())
    seconds = time.perf_counter() - started
    free = seconds_until_free(served)
    log = served.process.log.read_text(encoding="utf-8", errors="replace").splitlines()
    faults = [line for line in log if line.startswith("{") and json.loads(line).get("event") == "fault"]
    return {
        "minutes": minutes, "clients": clients,
        "statuses": {name: {str(key): count for key, count in found.items()} for name, found in sorted(counts.items())},
        "requests": sum(sum(found.values()) for found in counts.values()),
        "failures": len(failures), "examples": failures[:5], "faults": len(faults),
        "tokens_per_second": round(tokens / seconds, 1),
        "first_seconds": round(statistics.median(waits), 3) if waits else None,
        "free_seconds": round(free, 3), **growth(sizes),
    }  # fmt: skip


def growth(sizes: Sequence[int]) -> dict[str, Any]:
    """Memory of the last third of the time against the first third, by their medians.

    >>> growth([100_000_000, 101_000_000, 100_000_000, 104_000_000, 104_000_000, 104_000_000])
    {'memory_mb': [100.5, 104.0], 'memory_growth': 0.0348, 'memory_flat': True}
    """
    third = max(1, len(sizes) // 3)
    first, last = statistics.median(sizes[:third]), statistics.median(sizes[-third:])
    rise = last / first - 1
    return {
        "memory_mb": [round(first / 1e6, 1), round(last / 1e6, 1)], "memory_growth": round(rise, 4),
        "memory_flat": rise <= GROWTH,
    }  # fmt: skip
