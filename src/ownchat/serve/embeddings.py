"""``POST /v1/embeddings``, for models that were made for it; ``POST /v1/moderations``, for which there is none here.

A chat model has vectors too, but nobody taught them to be near each other where texts mean the same: an answer made of
them would look like one and be none. So embeddings come from models behind other servers, and local ones refuse.
"""

from __future__ import annotations

import asyncio
import base64
import struct
from threading import Event
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from ownchat.generate.openai import OpenAIEngine
from ownchat.serve import services as shared
from ownchat.serve.answers import told
from ownchat.serve.auth import needs
from ownchat.serve.errors import ApiError
from ownchat.serve.keys import Caller
from ownchat.serve.protocol.body import read
from ownchat.serve.protocol.embeddings import EmbeddingRequest, ModerationRequest
from ownchat.serve.running import alone, find_model, warning

router = APIRouter(prefix="/v1", tags=["embeddings"])

Infer = Annotated[Caller, Depends(needs("infer"))]
CHARACTERS_PER_TOKEN = 3


@router.post("/embeddings")
async def create(request: Request, caller: Infer) -> Response:
    """The vector of each text, by a model behind another server."""
    services = shared.of(request)
    body, unknown = await read(request, EmbeddingRequest, strict=services.settings.strict)
    entry = await find_model(services, body.model)
    if entry.upstream is None:
        others = [one.id for one in await asyncio.to_thread(services.catalogue.list) if one.upstream is not None]
        hint = f"models behind other servers may: {', '.join(others[:8])}" if others else "start the server with " \
            "--upstream NAME=URL#MODEL of one that can"  # fmt: skip
        raise ApiError(
            400, f"'{entry.id}' is a chat model and was not taught to embed texts; {hint}",
            param="model", code="unsupported_model",
        )  # fmt: skip
    tokens = sum(map(len, body.input)) // CHARACTERS_PER_TOKEN + len(body.input)

    async with services.admission.place(caller, tokens=tokens, request=request) as place:

        def embed(cancel: Event) -> tuple[list[list[float]], int | None]:
            with told(), services.pool.lease(entry, cancel, place.deadline) as loaded:
                if not isinstance(loaded.engine, OpenAIEngine):
                    raise ApiError(400, f"'{entry.id}' cannot embed texts", param="model", code="unsupported_model")
                return loaded.engine.embed_counted(body.input, cancel)

        try:
            vectors, counted_there = await alone(request, place, embed)
        except BaseException:
            place.used(0)
            raise
        tokens = tokens if counted_there is None else counted_there
        place.used(tokens)
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    counted = {"prompt_tokens": tokens, "total_tokens": tokens}
    found = {"object": "list", "data": data, "model": body.model, "usage": counted}
    return JSONResponse(found, headers=warning(unknown))


def _encoded(vector: list[float], form: str | None) -> list[float] | str:
    """As asked: the SDK asks for base64 of little-endian floats and decodes it by itself."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if form == "base64" else vector


@router.post("/moderations")
async def moderate(request: Request, caller: Infer) -> dict[str, Any]:
    """Refused: a stub that flags nothing would be a lie."""
    _, unknown = await read(request, ModerationRequest, strict=shared.of(request).settings.strict)
    raise ApiError(
        400, "no model here classifies texts for moderation; what a chat model may say is set by generate.policy of "
        "its run", param="model", code="model_not_found", headers=warning(unknown),
    )  # fmt: skip
