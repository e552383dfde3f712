"""The application: parts put together, and what surrounds every request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from ownchat import __version__
from ownchat.serve import (
    chat,
    completions,
    database,
    embeddings,
    errors,
    fine_tuning,
    health,
    models,
    responses,
    tracing,
)
from ownchat.serve.admission import Admission
from ownchat.serve.auth import Authentication
from ownchat.serve.catalogue import Catalogue
from ownchat.serve.conduct import Conducts
from ownchat.serve.job_store import JobStore
from ownchat.serve.keys import Keys
from ownchat.serve.logs import log
from ownchat.serve.metrics import Metrics
from ownchat.serve.middleware import BodyGuard, Edge, HostCheck
from ownchat.serve.pool import Pool
from ownchat.serve.records import Records
from ownchat.serve.services import Services
from ownchat.serve.settings import Settings

CLEAN_SECONDS = 3600  # between two looks for stored answers that are too old
READABLE = (
    "x-request-id", "retry-after", "retry-after-ms", "x-ownchat-model", "x-ownchat-disclosure", "x-ownchat-system",
    "x-ownchat-warning",
)  # fmt: skip


def create_app(settings: Settings) -> FastAPI:
    """A gateway over the models of ``settings.home``; ``app.state.services`` has its parts.

    Opens the database and loads no model. Raises :class:`~ownchat.errors.UserError` where the database cannot be used,
    and for an ``OWNCHAT_API_KEY`` that is easily guessed.
    """
    admission = Admission(settings)
    opened = database.connect(settings)
    jobs = JobStore(opened)
    catalogue = Catalogue(settings.home, settings.upstreams, names=jobs.models, coming=jobs.coming_models)
    services = Services(
        settings=settings,
        database=opened,
        keys=Keys(opened),
        admission=admission,
        catalogue=catalogue,
        pool=Pool(settings, catalogue),
        metrics=Metrics(admission),
        records=Records(opened, settings),
        conducts=Conducts(),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        cleaning = asyncio.create_task(_expire(services))
        async with fine_tuning.working(app):
            yield
        cleaning.cancel()
        with suppress(asyncio.CancelledError):
            await cleaning
        await asyncio.to_thread(services.pool.close)
        services.database.close()
        if traces is not None:
            await asyncio.to_thread(traces.close)

    traces = tracing.connect()
    middleware = [Middleware(Edge, admission, services.metrics, settings, traces), Middleware(HostCheck, settings)]
    if settings.cors_origins:  # outside of the keys: a browser asks without one whether it may ask with one
        cors = Middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",), expose_headers=READABLE,
        )  # fmt: skip
        middleware.append(cors)
    middleware += [Middleware(Authentication, services.keys), Middleware(BodyGuard, settings)]
    app = FastAPI(
        title="ownchat", version=__version__, lifespan=lifespan, middleware=middleware, redirect_slashes=False,
        docs_url=None, redoc_url=None,  # these pages load programs from elsewhere
    )  # fmt: skip
    app.state.services = services
    fine_tuning.attach(app, services, jobs)
    errors.install(app)
    for module in (chat, completions, responses, models, embeddings, health):
        app.include_router(module.router)
    return app


async def _expire(services: Services) -> None:
    """Delete stored answers that are older than ``retention_days``, now and every hour."""
    while True:
        try:
            deleted = await asyncio.to_thread(services.records.expire)
            if deleted:
                log("expired", records=deleted)
        except Exception as error:  # a database that is away for a moment ends no server
            log("expire_failed", level=logging.ERROR, error=error)
        await asyncio.sleep(CLEAN_SECONDS)
