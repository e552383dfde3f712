"""``POST /v1/chat/completions``, and what was stored of them: list, get, update, delete, messages."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from ownchat.serve import services as shared
from ownchat.serve.asking import Ask, Given, Piece
from ownchat.serve.auth import needs
from ownchat.serve.keys import Caller
from ownchat.serve.protocol.body import Sampled, Update, check_metadata, read
from ownchat.serve.protocol.chat import ChatRequest, NamedTool
from ownchat.serve.records import CHAT, Record
from ownchat.serve.running import Running, usage, warning
from ownchat.serve.stored import fit, forget, metadata_filter, not_stored, page, page_after, stored
from ownchat.serve.streaming import DONE, PING, EventStream, error_event, event
from ownchat.serve.tools import Call

router = APIRouter(prefix="/v1/chat/completions", tags=["chat"])

Infer = Annotated[Caller, Depends(needs("infer"))]


@router.post("")
async def create(request: Request, caller: Infer) -> Response:
    """Answer a conversation."""
    services = shared.of(request)
    body, unknown = await read(request, ChatRequest, strict=services.settings.strict)
    metadata = check_metadata(body.metadata)
    store = services.settings.store_default if body.store is None else body.store
    if metadata and not store and body.store is None:
        unknown = (*unknown, "metadata")  # without store it goes nowhere
    ask = ask_of(body)
    running = await Running.start(request, caller, ask)
    answer = _Answer(running, ask)
    kept = _Kept(services.records, caller, body, ask, metadata) if store else None
    if body.stream:
        events = _events(running, answer, kept, bool(body.stream_options and body.stream_options.include_usage))
        return EventStream(events, running.close, running.headers_with(unknown))
    try:
        for piece in await running.whole(request):
            answer.add(piece)
        found = answer.completion(usage(running))
        if kept is not None:
            await kept.store(found, running)
        return JSONResponse(found, headers=running.headers_with(unknown))
    finally:
        await running.close()


def ask_of(body: ChatRequest) -> Ask:
    """What is wanted of the model."""
    choice = body.tool_choice
    name = choice.function.name if isinstance(choice, NamedTool) else None
    max_tokens = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    return Ask(
        model=body.model,
        given=given_of(body),
        messages=tuple(message.plain() for message in body.messages),
        max_tokens=max_tokens,
        n=body.n or 1,
        schema=body.response_format.wanted if body.response_format is not None else None,
        tools=tuple(tool.model_dump(exclude_none=True) for tool in body.tools or ()),
        tool_choice=choice if isinstance(choice, str) else "auto" if choice is None else "named",
        tool_name=name,
        parallel=body.parallel_tool_calls is not False,
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs or 0,
    )


def given_of(body: Sampled) -> Given:
    """The sampling that a body of chat or of completions names."""
    names = (
        "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty",
        "logit_bias", "seed",
    )  # fmt: skip
    return Given(**{name: getattr(body, name) for name in names}, stop=None if body.stop is None else tuple(body.stop))


class _Answer:
    """The choices as they grow, and the objects that show them."""

    def __init__(self, running: Running, ask: Ask) -> None:
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(16)}",
            "created": int(time.time()),
            "model": ask.model,
            **running.fingerprint,
        }
        self._logprobs = ask.logprobs
        self._texts = [""] * ask.n
        self._calls: list[list[dict[str, Any]]] = [[] for _ in range(ask.n)]
        self._tokens: list[list[dict[str, Any]]] = [[] for _ in range(ask.n)]
        self._reasons = ["stop"] * ask.n
        self._opened: set[int] = set()

    def add(self, piece: Piece) -> list[dict[str, Any]]:
        """Keep a piece; the tool calls in it as they are shown."""
        self._texts[piece.index] += piece.text
        calls = [_call(call) for call in piece.calls]
        self._calls[piece.index] += calls
        self._tokens[piece.index] += piece.logprobs
        if piece.finish_reason is not None:
            self._reasons[piece.index] = piece.finish_reason
        return calls

    def completion(self, counted: dict[str, Any]) -> dict[str, Any]:
        """The whole ``chat.completion``."""
        choices = []
        for index, text in enumerate(self._texts):
            calls = self._calls[index]
            message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
            if calls:
                message["tool_calls"] = calls
            choices.append({
                "index": index, "message": message, "finish_reason": self._reasons[index],
                "logprobs": {"content": self._tokens[index], "refusal": None} if self._logprobs else None,
            })  # fmt: skip
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": counted}

    def chunks(self, piece: Piece, *, with_usage: bool) -> list[dict[str, Any]]:
        """The ``chat.completion.chunk``s of a piece: the role first, the reason alone at the end."""
        index, calls = piece.index, self.add(piece)
        before = len(self._calls[index]) - len(calls)
        chunks = []
        if index not in self._opened:
            self._opened.add(index)
            chunks.append(self._chunk(index, {"role": "assistant", "content": "", "refusal": None}, with_usage))
        if piece.text or piece.logprobs:
            chunks.append(self._chunk(index, {"content": piece.text}, with_usage, tokens=piece.logprobs))
        for number, call in enumerate(calls, start=before):
            chunks.append(self._chunk(index, {"tool_calls": [{"index": number, **call}]}, with_usage))
        if piece.finish_reason is not None:
            chunks.append(self._chunk(index, {}, with_usage, reason=piece.finish_reason))
        return chunks

    def usage_chunk(self, counted: dict[str, Any]) -> dict[str, Any]:
        """The last one of a stream that was asked for it."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": counted}

    def _chunk(
        self, index: int, delta: dict[str, Any], with_usage: bool, *, tokens: Any = (), reason: str | None = None
    ) -> dict[str, Any]:
        logprobs = {"content": list(tokens), "refusal": None} if tokens else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return chunk | {"usage": None} if with_usage else chunk


def _call(call: Call) -> dict[str, Any]:
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


async def _events(running: Running, answer: _Answer, kept: _Kept | None, with_usage: bool) -> AsyncIterator[bytes]:
    try:
        async for piece in running.pieces(pings=True):
            if piece is None:
                yield PING
                continue
            chunks = answer.chunks(piece, with_usage=with_usage)
            yield b"".join(event(chunk) for chunk in chunks)
        if kept is not None:  # before the end, so that whoever has the answer can also rate it
            await kept.store(answer.completion(usage(running)), running)
        if with_usage:
            yield event(answer.usage_chunk(usage(running)))
        yield DONE
    except Exception as error:
        yield error_event(running.failed(error))


# ---------------------------------------------------------------------------------------------------- stored


class _Kept:
    """What has to be stored once the answer is there."""

    def __init__(self, records: Any, caller: Caller, body: ChatRequest, ask: Ask, metadata: dict[str, str]) -> None:
        self._records, self._caller, self._ask, self._metadata = records, caller, ask, metadata
        settings = body.model_dump(exclude_none=True, by_alias=True, exclude={
            "model", "messages", "tools", "stream", "stream_options", "store", "metadata",
        })  # fmt: skip
        self._settings = settings

    async def store(self, completion: dict[str, Any], running: Running) -> None:
        record = Record(
            id=completion["id"],
            kind=CHAT,
            owner=self._caller.owner,
            model=self._ask.model,
            model_hash=running.begun.fingerprint,
            messages=list(self._ask.messages or ()),
            tools=list(self._ask.tools),
            settings=self._settings,
            answer=completion,
            metadata=self._metadata,
        )
        await asyncio.to_thread(self._records.add, record)


@router.get("")
async def list_stored(
    request: Request,
    caller: Infer,
    model: str | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "asc",
) -> dict[str, Any]:
    """Stored completions of the caller's owner, oldest first; ``metadata[KEY]=VALUE`` chooses among them."""
    wanted = metadata_filter(request)
    found, more = await asyncio.to_thread(
        shared.of(request).records.list, caller.owner, kind=CHAT, model=model, metadata=wanted, after=after,
        limit=fit(limit), newest_first=order == "desc",
    )  # fmt: skip
    return page([_shown(record) for record in found], more)


def _shown(record: Record) -> dict[str, Any]:
    extra = {"tools": record.tools} if record.tools else {}
    return {**record.answer, "metadata": record.metadata, **extra}


@router.get("/{completion_id}")
async def retrieve(request: Request, completion_id: str, caller: Infer) -> dict[str, Any]:
    """One stored completion."""
    return _shown(await stored(request, completion_id, caller, CHAT))


@router.post("/{completion_id}")
async def update(request: Request, completion_id: str, caller: Infer) -> Response:
    """New metadata for it: ``{"rating": "up"}``, ``{"edited": "a better answer"}``, or labels of one's own."""
    body, unknown = await read(request, Update, strict=shared.of(request).settings.strict)
    metadata = check_metadata(body.metadata)
    record = await asyncio.to_thread(
        shared.of(request).records.update, caller.owner, completion_id, metadata, kind=CHAT
    )
    if record is None:
        raise not_stored(completion_id)
    return JSONResponse(_shown(record), headers=warning(unknown))


@router.delete("/{completion_id}")
async def delete(request: Request, completion_id: str, caller: Infer) -> dict[str, Any]:
    """Forget it."""
    return await forget(request, completion_id, caller, CHAT, "chat.completion.deleted")


@router.get("/{completion_id}/messages")
async def messages(
    request: Request,
    completion_id: str,
    caller: Infer,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "asc",
) -> dict[str, Any]:
    """What was asked."""
    record = await stored(request, completion_id, caller, CHAT)
    listed = [
        {"id": f"{record.id}-{number}", "content": None, "refusal": None, "content_parts": None, **_with_texts(message)}
        for number, message in enumerate(record.messages)
    ]
    return page_after(listed[::-1] if order == "desc" else listed, after, limit)


def _with_texts(message: dict[str, Any]) -> dict[str, Any]:
    """A stored message as the API has it: arguments are JSON text, where templates want values."""
    calls = [
        {**call, "function": {**call["function"], "arguments": _json(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    return {**message, "tool_calls": calls} if calls else message


def _json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
