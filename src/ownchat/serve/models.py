"""``/v1/models``: what can be asked for, one of it, and taking a run out of service."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from ownchat.errors import RunError, UserError
from ownchat.serve import services as shared
from ownchat.serve.auth import needs
from ownchat.serve.catalogue import Entry
from ownchat.serve.errors import ApiError
from ownchat.serve.keys import Caller
from ownchat.serve.running import find_model, header_text
from ownchat.serve.services import Services

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", dependencies=[Depends(needs("infer"))])
async def list_models(request: Request) -> dict[str, Any]:
    """All models, the starter first."""
    services = shared.of(request)

    def shown() -> list[dict[str, Any]]:
        return [_shown(services, entry) for entry in services.catalogue.list()]

    return {"object": "list", "data": await asyncio.to_thread(shown)}


# A client writes a slash in an id as %2F, which servers decode before any route is looked for.
@router.get("/{model:path}", dependencies=[Depends(needs("infer"))])
async def retrieve(request: Request, model: str) -> Response:
    """One model; what users have to be told of it also stands in a header."""
    services = shared.of(request)
    shown = await asyncio.to_thread(_shown, services, await find_model(services, model))
    told = shown["ownchat"].get("disclosure")
    return JSONResponse(shown, headers={"x-ownchat-disclosure": header_text(told)} if told else {})


@router.delete("/{model:path}")
async def delete(request: Request, model: str, _: Annotated[Caller, Depends(needs("admin"))]) -> dict[str, Any]:
    """Take a run out of service; its directory goes to ``trash/`` and can be moved back."""
    services = shared.of(request)
    entry = await find_model(services, model)
    if await asyncio.to_thread(request.app.state.jobs.learns_from, entry.id):
        raise ApiError(
            400, "a fine-tuning job that is not over learns from this model: cancel it before", param="model",
            code="invalid_value",
        )  # fmt: skip
    try:
        await asyncio.to_thread(services.catalogue.delete, entry.id)
    except RunError as error:
        raise ApiError(400, f"{error.what}. {error.fix}".strip(" ."), param="model", code="invalid_value") from error
    return {"id": entry.id, "object": "model", "deleted": True}


def _shown(services: Services, entry: Entry) -> dict[str, Any]:
    """OpenAI's object, and under ``ownchat`` what it has no word for."""
    told: dict[str, Any] = {**entry.info, "promoted": entry.promoted}
    try:
        conduct = services.conducts.of(entry)
        told["disclosure"] = conduct.disclosure
        if entry.located is not None and entry.located.system:
            told["system"] = conduct.system  # its name; the text is its owner's
    except UserError as error:  # of one model: the others are listed all the same
        told["problem"] = error.what
    return {
        "id": entry.id, "object": "model", "created": entry.created, "owned_by": entry.owned_by, "shutdown_date": None,
        "ownchat": told,
    }  # fmt: skip
