"""``/v1/responses``: answers with a history that the server keeps, where it is asked to keep it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from threading import Event
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response as HttpResponse

from ownchat.serve import services as shared
from ownchat.serve.answers import told
from ownchat.serve.asking import Ask, Given
from ownchat.serve.auth import needs
from ownchat.serve.conversing import Response, items_of, messages_of
from ownchat.serve.errors import ApiError
from ownchat.serve.exporting import answered
from ownchat.serve.keys import Caller
from ownchat.serve.protocol.body import check_metadata, read
from ownchat.serve.protocol.chat import ChatMessage, ToolCall
from ownchat.serve.protocol.responses import CountRequest, NamedFunction, ResponseRequest
from ownchat.serve.records import RESPONSE, Record
from ownchat.serve.running import Running, alone, find_model, warning
from ownchat.serve.stored import forget, page_after, stored
from ownchat.serve.streaming import PING, EventStream, event

router = APIRouter(prefix="/v1/responses", tags=["responses"])

Infer = Annotated[Caller, Depends(needs("infer"))]
Message = dict[str, Any]


@router.post("")
async def create(request: Request, caller: Infer) -> HttpResponse:
    """Answer; with ``store`` the answer can be gone on from by its id (``previous_response_id``)."""
    services = shared.of(request)
    body, unknown = await read(request, ResponseRequest, strict=services.settings.strict)
    metadata = check_metadata(body.metadata)
    store = services.settings.store_default if body.store is None else body.store
    history = await _history(request, caller, body.previous_response_id)
    conversation = [*history, *messages_of(body.input)]
    ask = _ask(body, [*_instructions(body.instructions), *conversation])
    running = await Running.start(request, caller, ask)
    response = Response(body, running, store=store, metadata=metadata)
    items = items_of(body.input)

    async def keep() -> None:
        if store:
            record = Record(
                id=response.id, kind=RESPONSE, owner=caller.owner, model=body.model,
                model_hash=running.begun.fingerprint, messages=conversation, tools=list(ask.tools),
                settings={"input": items}, answer=response.whole(), metadata=metadata,
            )  # fmt: skip
            await asyncio.to_thread(services.records.add, record)

    if body.stream:
        return EventStream(_events(running, response, keep), running.close, running.headers_with(unknown))
    try:
        for piece in await running.whole(request):
            response.add(piece)
        response.end()
        await keep()
        return JSONResponse(response.whole(), headers=running.headers_with(unknown))
    finally:
        await running.close()


def _ask(body: ResponseRequest, messages: list[Message]) -> Ask:
    choice = body.tool_choice
    name = choice.name if isinstance(choice, NamedFunction) else None
    with_logprobs = "message.output_text.logprobs" in (body.include or ()) or bool(body.top_logprobs)
    return Ask(
        model=body.model,
        given=Given(temperature=body.temperature, top_p=body.top_p),
        messages=tuple(messages),
        max_tokens=body.max_output_tokens,
        schema=body.text.format.wanted if body.text is not None and body.text.format is not None else None,
        tools=tuple(tool.plain() for tool in body.tools or ()),
        tool_choice=choice if isinstance(choice, str) else "auto" if choice is None else "named",
        tool_name=name,
        parallel=body.parallel_tool_calls is not False,
        logprobs=with_logprobs,
        top_logprobs=body.top_logprobs or 0,
    )


def _instructions(text: str | None) -> list[Message]:
    return [{"role": "system", "content": text}] if text else []


async def _history(request: Request, caller: Caller, id: str | None) -> list[Message]:
    """The conversation up to a stored answer, that answer included; what was private in it are placeholders."""
    if id is None:
        return []
    record = await asyncio.to_thread(shared.of(request).records.get, caller.owner, id, kind=RESPONSE)
    if record is None:
        raise ApiError(
            400, f"Previous response with id '{id[:80]}' not found: was it made with store: true?",
            param="previous_response_id", code="previous_response_not_found",
        )  # fmt: skip
    said = answered(record)
    if said is None:
        return record.messages
    calls = [ToolCall.model_validate(call) for call in said.get("tool_calls", ())] or None
    return [*record.messages, ChatMessage(role="assistant", content=said["content"], tool_calls=calls).plain()]


async def _events(running: Running, response: Response, keep: Any) -> AsyncIterator[bytes]:
    def sent(events: list[dict[str, Any]]) -> bytes:
        return b"".join(event(one, one["type"]) for one in events)

    try:
        yield sent(response.begin())
        async for piece in running.pieces(pings=True):
            if piece is None:
                yield PING
            elif events := response.add(piece):
                yield sent(events)
        last = response.end()
        await keep()
        yield sent(last)
    except Exception as error:
        yield sent([response.fail(running.failed(error).message)])


# ---------------------------------------------------------------------------------------------------- stored


@router.post("/input_tokens")
async def count(request: Request, caller: Infer) -> HttpResponse:
    """How many tokens a request would have; the model is loaded for it."""
    services = shared.of(request)
    body, unknown = await read(request, CountRequest, strict=services.settings.strict)
    history = await _history(request, caller, body.previous_response_id)
    given = [] if body.input is None else messages_of(body.input)
    messages = [*_instructions(body.instructions), *history, *given]
    if not messages:
        raise ApiError(400, "'input': there is nothing to count", param="input", code="invalid_value")
    entry = await find_model(services, body.model)

    tokens = sum(len(str(one)) for one in messages) // 3
    async with services.admission.place(caller, tokens=tokens, request=request) as place:

        def counted(cancel: Event) -> int:
            with told(), services.pool.lease(entry, cancel, place.deadline) as loaded:
                return loaded.count(messages)

        found = {"object": "response.input_tokens", "input_tokens": await alone(request, place, counted)}
    return JSONResponse(found, headers=warning(unknown))


@router.post("/compact")
async def compact(request: Request, caller: Infer) -> dict[str, Any]:
    """Refused: no model here was taught to write a conversation shorter."""
    raise ApiError(400, "conversations cannot be compacted here", code="unsupported_endpoint")


@router.get("/{response_id}")
async def retrieve(request: Request, response_id: str, caller: Infer, stream: bool = False) -> dict[str, Any]:
    """One stored answer."""
    if stream:
        raise ApiError(400, "a stored answer is not streamed again", param="stream", code="unsupported_value")
    return (await stored(request, response_id, caller, RESPONSE)).answer


@router.delete("/{response_id}")
async def delete(request: Request, response_id: str, caller: Infer) -> dict[str, Any]:
    """Forget it."""
    return await forget(request, response_id, caller, RESPONSE, "response")


@router.post("/{response_id}/cancel")
async def cancel(request: Request, response_id: str, caller: Infer) -> dict[str, Any]:
    """Refused: only answers in the background are cancelled so; hang up to end one that is being made."""
    await stored(request, response_id, caller, RESPONSE)
    raise ApiError(400, "only responses in the background can be cancelled", code="invalid_value")


@router.get("/{response_id}/input_items")
async def input_items(
    request: Request,
    response_id: str,
    caller: Infer,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, Any]:
    """What was asked, newest first."""
    items = (await stored(request, response_id, caller, RESPONSE)).settings["input"]
    return page_after(items[::-1] if order == "desc" else items, after, limit)
