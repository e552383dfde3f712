"""Whether a server lives, whether it can answer, and its figures."""

from __future__ import annotations

import shutil
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from ownchat.errors import OwnchatError
from ownchat.serve import metrics, services
from ownchat.serve.auth import needs
from ownchat.serve.errors import ApiError
from ownchat.serve.keys import Caller

LEAST_FREE_BYTES = 100_000_000
LOOK_SECONDS = 1.0  # between two looks: anybody may ask

router = APIRouter()


@router.get("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """The process lives. Open to all."""
    return {"status": "ok"}


@router.get("/readyz", include_in_schema=False)
def readyz(request: Request) -> JSONResponse:
    """It can answer now: models to serve, a database, room on the disk, and it is not going down. Open to all."""
    state = request.app.state
    seen, faults = getattr(state, "ready", (0.0, []))
    if time.monotonic() - seen > LOOK_SECONDS or seen == 0.0:
        faults = _faults(services.of(request))
        state.ready = (time.monotonic(), faults)
    if services.of(request).admission.draining:
        faults = [*faults, "draining"]
    if faults:
        return JSONResponse({"status": "not ready", "because": faults}, 503, headers={"retry-after": "5"})
    return JSONResponse({"status": "ok"})


@router.get("/metrics", include_in_schema=False)
def figures(request: Request, _: Annotated[Caller, Depends(needs("metrics"))]) -> Response:
    """For Prometheus; needs a key with the scope ``metrics``: figures tell who works when."""
    of_server = services.of(request)
    if not of_server.settings.metrics:
        raise ApiError(404, "metrics are switched off", code="not_found")
    return Response(of_server.metrics.text(), headers={"content-type": metrics.CONTENT_TYPE})


def _faults(of_server: services.Services) -> list[str]:
    """What is wrong, in words that anybody may read."""
    faults: list[Any] = []
    try:
        if not of_server.catalogue.list():
            faults.append("no model")
    except SQLAlchemyError:
        pass  # names of trained models stand there; said below
    except (OwnchatError, OSError):
        faults.append("models")
    try:
        with of_server.database.read() as connection:
            connection.execute(select(1))
    except SQLAlchemyError:
        faults.append("database")
    try:
        if shutil.disk_usage(of_server.settings.home).free < LEAST_FREE_BYTES:
            faults.append("disk")
    except OSError:
        faults.append("disk")
    return faults
