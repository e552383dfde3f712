"""``POST /v1/completions``: the continuation of a bare text or of ids, as evaluation harnesses want it."""

from __future__ import annotations

import secrets
import time
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from ownchat.serve import services as shared
from ownchat.serve.asking import Ask, Piece
from ownchat.serve.auth import needs
from ownchat.serve.chat import given_of
from ownchat.serve.keys import Caller
from ownchat.serve.protocol.body import read
from ownchat.serve.protocol.completions import CompletionRequest
from ownchat.serve.running import Running, usage
from ownchat.serve.streaming import DONE, PING, EventStream, error_event, event

router = APIRouter(prefix="/v1", tags=["completions"])

DEFAULT_MAX_TOKENS = 16  # OpenAI's


@router.post("/completions")
async def create(request: Request, caller: Annotated[Caller, Depends(needs("infer"))]) -> Response:
    """Continue each prompt; with ``echo`` and ``logprobs`` also the probabilities of the prompt's own tokens."""
    body, unknown = await read(request, CompletionRequest, strict=shared.of(request).settings.strict)
    n = body.n or 1
    ask = Ask(
        model=body.model,
        given=given_of(body),
        prompts=tuple(prompt if isinstance(prompt, str) else tuple(prompt) for prompt in body.prompt),
        max_tokens=DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        n=n,
        logprobs=body.logprobs is not None,
        top_logprobs=body.logprobs or 0,
        echo=bool(body.echo),
    )
    running = await Running.start(request, caller, ask)
    choices = _Choices(running, ask)
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return EventStream(_events(running, choices, with_usage), running.close, running.headers_with(unknown))
    try:
        for piece in await running.whole(request):
            choices.add(piece)
        return JSONResponse(choices.completion(usage(running)), headers=running.headers_with(unknown))
    finally:
        await running.close()


class _Choices:
    """The continuations as they grow."""

    def __init__(self, running: Running, ask: Ask) -> None:
        self._head = {
            "id": f"cmpl-{secrets.token_hex(16)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": ask.model,
            **running.fingerprint,
        }
        self._logprobs, self._top = ask.logprobs, ask.top_logprobs
        number = ask.n * len(ask.prompts)
        self._texts = [""] * number
        self._tokens: list[list[dict[str, Any]]] = [[] for _ in range(number)]
        self._reasons = ["stop"] * number
        self._offsets = [0] * number  # whole characters so far
        self._decoders = [getincrementaldecoder("utf-8")("replace") for _ in range(number)]

    def add(self, piece: Piece) -> None:
        """Keep a piece."""
        self._texts[piece.index] += piece.text
        self._tokens[piece.index] += piece.logprobs
        if piece.finish_reason is not None:
            self._reasons[piece.index] = piece.finish_reason

    def completion(self, counted: dict[str, Any]) -> dict[str, Any]:
        """The whole object."""
        choices = [
            self._choice(index, text, self._tokens[index], self._reasons[index])
            for index, text in enumerate(self._texts)
        ]
        return {**self._head, "choices": choices, "usage": counted}

    def chunk(self, piece: Piece, *, with_usage: bool) -> dict[str, Any]:
        """A piece of a stream."""
        choice = self._choice(piece.index, piece.text, piece.logprobs, piece.finish_reason)
        return {**self._head, "choices": [choice], **({"usage": None} if with_usage else {})}

    def usage_chunk(self, counted: dict[str, Any]) -> dict[str, Any]:
        """The last one of a stream that was asked for it."""
        return {**self._head, "choices": [], "usage": counted}

    def _choice(self, index: int, text: str, tokens: Any, reason: str | None) -> dict[str, Any]:
        logprobs = self._legacy(index, tokens) if self._logprobs else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _legacy(self, index: int, tokens: Any) -> dict[str, Any]:
        """The older form: lists side by side. The first token of an echoed prompt has no probability.

        A character of several tokens begins where the first of them does; control tokens take no place in the text.
        """
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[index])
            if not token.get("silent"):
                self._offsets[index] += len(self._decoders[index].decode(bytes(token["bytes"])))
        tops = [None if token["logprob"] is None else _by_text(token["top_logprobs"]) for token in tokens]
        return {
            "tokens": [token["token"] for token in tokens],
            "token_logprobs": [token["logprob"] for token in tokens],
            "top_logprobs": tops if self._top else None,
            "text_offset": offsets,
        }


def _by_text(top: list[dict[str, Any]]) -> dict[str, float]:
    """Alternatives by their text; of two that look alike the likelier one."""
    found: dict[str, float] = {}
    for one in top:
        found[one["token"]] = max(one["logprob"], found.get(one["token"], one["logprob"]))
    return found


async def _events(running: Running, choices: _Choices, with_usage: bool) -> AsyncIterator[bytes]:
    try:
        async for piece in running.pieces(pings=True):
            yield PING if piece is None else event(choices.chunk(piece, with_usage=with_usage))
        if with_usage:
            yield event(choices.usage_chunk(usage(running)))
        yield DONE
    except Exception as error:
        yield error_event(running.failed(error))
