"""The fine-tuning side of a gateway put together: files, uploads, jobs, and what works on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from ownchat.serve import files, jobs
from ownchat.serve.file_store import FileStore
from ownchat.serve.job_store import JobStore
from ownchat.serve.logs import log
from ownchat.serve.runner import Runner
from ownchat.serve.services import Services
from ownchat.serve.upload_store import UploadStore
from ownchat.serve.webhooks import Webhooks

SWEEP_SECONDS = 600  # between two looks for uploads whose time is over


def attach(app: FastAPI, services: Services, store: JobStore) -> None:
    """Give an application its routes, and ``app.state`` its parts: ``files``, ``uploads``, ``jobs``, ``runner``,
    ``webhooks``."""
    home = services.settings.home
    app.state.jobs = store
    app.state.files = FileStore(services.database, home)
    app.state.uploads = UploadStore(services.database, app.state.files, home)
    app.state.runner = Runner(store, app.state.files, services.catalogue, services.settings)
    runner: Runner = app.state.runner
    app.state.webhooks = Webhooks(services.database, services.settings, services.metrics, lambda: runner.leads)
    for module in (files, jobs):
        app.include_router(module.router)


@asynccontextmanager
async def working(app: FastAPI) -> AsyncIterator[None]:
    """Work on jobs while the block runs. Raises :class:`~ownchat.errors.RunError` when another server does."""
    webhooks: Webhooks = app.state.webhooks
    try:
        await asyncio.to_thread(webhooks.start)  # first: a job may end at once
        await asyncio.to_thread(app.state.runner.start)
        sweeping = asyncio.create_task(_sweep(app.state.uploads))
        try:
            yield
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            await asyncio.to_thread(app.state.runner.close)
    finally:
        await asyncio.to_thread(webhooks.close)


async def _sweep(uploads: UploadStore) -> None:
    while True:
        try:
            await asyncio.to_thread(uploads.sweep)
        except Exception as error:  # a database that is away for a moment ends no server
            log("sweep_failed", level=logging.ERROR, error=error)
        await asyncio.sleep(SWEEP_SECONDS)
