"""One request on its way: admitted, begun in a thread, given out, and its place left, whatever happens in between."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from threading import Event
from typing import Any, TypeVar

import anyio
from fastapi import Request

from ownchat.serve import services as shared
from ownchat.serve.admission import Gone, Place
from ownchat.serve.answers import answer
from ownchat.serve.asking import Ask, Begun, Piece, Progress
from ownchat.serve.catalogue import Entry, UnknownModel
from ownchat.serve.errors import ApiError, of_exception
from ownchat.serve.keys import Caller
from ownchat.serve.logs import log
from ownchat.serve.protocol.body import named
from ownchat.serve.services import Services
from ownchat.serve.streaming import PING_SECONDS, Answering, Waiting, unless_gone
from ownchat.serve.tracing import Generation

T = TypeVar("T")

GRACE_SECONDS = 1.0  # for a failure right at the beginning, which is a status then and no broken stream


async def find_model(services: Services, id: str) -> Entry:
    """The model of that name; raises :class:`~ownchat.serve.errors.ApiError` 404 with ``model_not_found``."""
    try:
        return await asyncio.to_thread(services.catalogue.find, id)
    except UnknownModel as error:
        raise ApiError(404, f"{error.what}. {error.fix}", param="model", code="model_not_found") from error


async def alone(request: Request, place: Place, work: Callable[[Event], T]) -> T:
    """What ``work(cancel)`` returns, in a thread of its own: it may take minutes, and the threads that all routes share
    look keys up.

    Raises what ``work`` raises, 504 at the deadline, and :class:`~ownchat.serve.admission.Gone` when the client leaves.
    """

    def make(cancel: Event) -> Iterator[T]:
        yield work(cancel)

    answering: Answering[T] = Answering(make, shared.of(request).settings, deadline=place.deadline)
    try:
        found = await unless_gone(answering.get(), request.receive)
    finally:
        await answering.close()
    if found is None or isinstance(found, Waiting):
        raise Gone
    return found


class Running:
    """Made by :meth:`start`; give out :meth:`pieces`, and :meth:`close` always."""

    def __init__(
        self, request: Request, entry: Entry, ask: Ask, place: Place, begun: Begun,
        answering: Answering[Begun | Piece],
    ) -> None:  # fmt: skip
        self.entry, self.ask, self.begun = entry, ask, begun
        self._request = request
        self._place, self._answering = place, answering
        self._stack = AsyncExitStack()
        self._first: Piece | None = None

    @classmethod
    async def start(cls, request: Request, caller: Caller, ask: Ask) -> Running:
        """Wait for a place, load the model where it is not, and begin.

        Raises what admission and the model refuse, and :class:`~ownchat.serve.admission.Gone`.
        """
        services = shared.of(request)
        entry = await find_model(services, ask.model)
        conduct = await asyncio.to_thread(services.conducts.of, entry)
        async with AsyncExitStack() as stack:
            place = await stack.enter_async_context(
                services.admission.place(caller, tokens=ask.estimate, request=request)
            )
            stack.callback(place.used, 0)  # what was not begun is not counted; a second call has no effect
            progress = Progress()
            work = partial(answer, services, conduct, entry, ask, progress, deadline=place.deadline)
            answering: Answering[Begun | Piece] = Answering(
                work, services.settings, deadline=place.deadline, progress=progress
            )
            stack.push_async_callback(answering.close)
            begun = await unless_gone(answering.get(), request.receive)
            if begun is None:
                raise Gone
            if not isinstance(begun, Begun):
                raise RuntimeError("an answer began in its middle")
            running = cls(request, entry, ask, place, begun, answering)
            first = await unless_gone(answering.get(GRACE_SECONDS), request.receive)
            running._first = first if isinstance(first, Piece) else None
            running._stack = stack.pop_all()
            return running
        raise AssertionError("the block above returns or raises")

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts, as the server behind the model counted them, where there is one that does."""
        return self._answering.progress.prompt_tokens or self.begun.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        """Of all answers so far, also those that were not given out yet."""
        return sum(self._answering.progress.tokens.copy().values())

    @property
    def fingerprint(self) -> dict[str, str]:
        """``system_fingerprint`` as OpenAI's objects have it; nothing for weights that are elsewhere."""
        found = self.begun.fingerprint
        return {"system_fingerprint": f"fp_{found[:12]}"} if found else {}

    @property
    def headers(self) -> dict[str, str]:
        """What every answer tells of its model: a hash of its weights, what users have to know, and the name of the
        system text that was put in."""
        told = {"x-ownchat-model": self.begun.fingerprint} if self.begun.fingerprint else {}
        if self.begun.disclosure:
            told["x-ownchat-disclosure"] = header_text(self.begun.disclosure)
        if self.begun.system:
            told["x-ownchat-system"] = header_text(self.begun.system)
        return told

    def headers_with(self, unknown: tuple[str, ...]) -> dict[str, str]:
        """The same with a warning of fields that have no effect."""
        return self.headers | warning(unknown, self.begun.warning)

    async def pieces(self, *, pings: bool = False) -> AsyncIterator[Piece | None]:
        """The pieces as they come; with ``pings`` ``None`` where nothing came for a while."""
        first, self._first = self._first, None
        if first is not None:
            yield first
        while True:
            piece = await self._answering.get(PING_SECONDS if pings else None)
            if piece is None:
                return
            if isinstance(piece, Waiting):
                yield None
            elif isinstance(piece, Piece):
                yield piece

    def failed(self, error: Exception) -> ApiError:
        """What the client is told of a failure in the middle of a stream.

        Its status went out as 200 long before, so it is logged and counted here: a fault of ours with its place,
        never with its text.
        """
        told = of_exception(error)
        self._request.state.log["code"] = told.code
        shared.of(self._request).metrics.error(told.status, told.code)
        if told.status == 500:
            log("fault", level=logging.ERROR, error=error, request_id=self._request.state.request_id)
        return told

    async def whole(self, request: Request) -> list[Piece]:
        """All pieces; raises :class:`~ownchat.serve.admission.Gone` when the client leaves before the last."""

        async def gather() -> list[Piece]:
            return [piece async for piece in self.pieces() if piece is not None]

        found = await unless_gone(gather(), request.receive)
        if found is None:
            raise Gone
        return found

    async def close(self) -> None:
        """End what still runs, and leave the place once it has ended."""
        with anyio.CancelScope(shield=True):
            await self._answering.close()  # now all tokens are counted
            self._place.used(self.prompt_tokens + self.completion_tokens)
            self._request.state.log |= {
                "model": self.entry.id,
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
            }
            self._request.state.generation = Generation(
                self.entry.id, "text_completion" if self.ask.messages is None else "chat", self.ask.started,
                time.monotonic(), self._place.waited_seconds, self.prompt_tokens, self.completion_tokens,
            )  # fmt: skip
            await self._stack.aclose()


def warning(unknown: tuple[str, ...], more: str | None = None) -> dict[str, str]:
    """The header that names fields without effect; none where there is nothing to say."""
    warnings = [f"ignored: {named(unknown)}"] if unknown else []
    warnings += [more] if more else []
    return {"x-ownchat-warning": header_text("; ".join(warnings))} if warnings else {}


def header_text(text: str) -> str:
    """A text as a header can carry it: ASCII, one line.

    >>> header_text("Größe – a\\r\\nb")
    'Gr%C3%B6%C3%9Fe %E2%80%93 a b'
    """
    line = " ".join(text.split())
    return "".join(one if " " <= one <= "~" else "".join(f"%{byte:02X}" for byte in one.encode()) for one in line)[
        :2000
    ]


def usage(running: Running) -> dict[str, Any]:
    """Tokens of the whole request as OpenAI counts them."""
    prompt, completion = running.prompt_tokens, running.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
