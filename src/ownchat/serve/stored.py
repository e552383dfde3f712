"""What the routes of stored answers have in common: one of the caller's records, forgetting it, and pages of lists."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request

from ownchat.serve import services as shared
from ownchat.serve.errors import ApiError
from ownchat.serve.keys import Caller
from ownchat.serve.protocol.body import check_metadata
from ownchat.serve.records import Kind, Record

MOST_ON_A_PAGE = 100


async def stored(request: Request, id: str, caller: Caller, kind: Kind) -> Record:
    """That record of the caller's owner; raises :class:`~ownchat.serve.errors.ApiError` 404."""
    record = await asyncio.to_thread(shared.of(request).records.get, caller.owner, id, kind=kind)
    if record is None:
        raise not_stored(id)
    return record


async def forget(request: Request, id: str, caller: Caller, kind: Kind, object: str) -> dict[str, Any]:
    """Delete it; OpenAI's answer to that, as ``object``."""
    if not await asyncio.to_thread(shared.of(request).records.delete, caller.owner, id, kind=kind):
        raise not_stored(id)
    return {"id": id, "object": object, "deleted": True}


def not_stored(id: str) -> ApiError:
    """404; also for what another owner stored."""
    return ApiError(404, f"there is no stored answer '{id[:80]}'", param="id", code="not_found")


def metadata_filter(request: Request) -> dict[str, str]:
    """Of the query: ``metadata[rating]=down``."""
    wanted = {
        key[len("metadata[") : -1]: value
        for key, value in request.query_params.multi_items()
        if key.startswith("metadata[") and key.endswith("]")
    }
    return check_metadata(wanted)


def fit(limit: int) -> int:
    """As many as one page may have; what is beyond is the nearest that can be, since the description has no bounds."""
    return min(max(limit, 1), MOST_ON_A_PAGE)


def page(data: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    """A page of a list, which the SDK turns by the last id."""
    ids = [item["id"] for item in data] or [""]  # OpenAI's description has no null here
    return {"object": "list", "data": data, "first_id": ids[0], "last_id": ids[-1], "has_more": more}


def page_after(items: list[dict[str, Any]], after: str | None, limit: int) -> dict[str, Any]:
    """A page of what is in memory. Raises 404 for an ``after`` that is not there: paging would begin anew."""
    ids = [item["id"] for item in items]
    if after and after not in ids:
        raise ApiError(404, "'after' is not an id of this list", param="after", code="not_found")
    start = ids.index(after) + 1 if after else 0
    stop = start + fit(limit)
    return page(items[start:stop], stop < len(items))
