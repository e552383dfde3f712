"""The process: a socket, signals, and an end that leaves no answer half."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ownchat.artifacts import owner_only, write_atomic
from ownchat.errors import ConfigError, UserError
from ownchat.serve import logs, webhooks
from ownchat.serve.admission import Admission
from ownchat.serve.catalogue import Catalogue
from ownchat.serve.errors import ApiError
from ownchat.serve.middleware import HEAD_BYTES
from ownchat.serve.services import Services
from ownchat.serve.settings import Settings

HEAD_SECONDS = 20.0  # for them to come; a body has Settings.upload_seconds
GRACE_SECONDS = 2  # for what is left when the time to drain is over
BACKLOG = 2048
MOST_FILES = 65_536
SHOWN = 8  # names of models that the start prints


class Protocol(H11Protocol):
    """HTTP/1.1 that waits for a request's head only so long, and refuses in OpenAI's shape."""

    _timer: asyncio.TimerHandle | None = None
    _before: Any = None  # the request before the one whose head the timer is for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Bytes came: the first of a head, or more of one."""
        between = self.cycle is None or self.cycle.response_complete
        if between and (self._timer is None or self._before is not self.cycle):
            self._arm()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or whose head is too long."""
        body = bytes(ApiError(400, "this is not a valid HTTP request, or its headers are too long").response().body)
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._before = self.cycle
        self._timer = self.loop.call_later(HEAD_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.cycle is self._before and not self.transport.is_closing():  # no request has come since
            self.transport.close()


class Server(uvicorn.Server):
    """Ends in two steps: at the first signal nobody is admitted and what runs goes on; at the second at once."""

    def __init__(self, config: uvicorn.Config, admission: Admission, drain_seconds: float) -> None:
        super().__init__(config)
        self._admission, self._drain_seconds = admission, drain_seconds
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT came."""
        if self._drain_until is not None or not self.started:
            os._exit(128 + sig)  # threads may be deep in a model: nothing would end them but this
        self._drain_until = time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it time to end?"""
        ended = await super().on_tick(counter)
        if self._drain_until is None:
            return ended
        if not self._admission.draining:
            logs.log("draining", running=self._admission.running, waiting=self._admission.waiting)
            self._admission.drain()
        return self._admission.running == 0 or time.monotonic() >= self._drain_until


def listen(settings: Settings) -> socket.socket:
    """The socket to serve on; port 0 takes any that is free.

    Raises :class:`~ownchat.errors.UserError` when the port is taken or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"cannot be listened on ({getattr(error, 'strerror', None) or error})",
            where=f"{settings.host}:{settings.port}",
            fix="choose another port with --port (0: any that is free), or end the server that has it",
        ) from error


def url(settings: Settings, listener: socket.socket) -> str:
    """What a client on this machine is given as ``base_url``."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    return f"http://{host}:{listener.getsockname()[1]}/v1"


def make(app: FastAPI, settings: Settings) -> Server:
    """The server of an application; ``run(sockets=[...])`` serves until a signal."""
    services: Services = app.state.services
    config = uvicorn.Config(
        app, http=Protocol, ws="none", log_config=None, access_log=False, server_header=False, proxy_headers=False,
        h11_max_incomplete_event_size=HEAD_BYTES, timeout_graceful_shutdown=GRACE_SECONDS, lifespan="on",
    )  # fmt: skip
    return Server(config, services.admission, settings.drain_seconds)


def serve(app: FastAPI, settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is called when clients are answered."""
    logs.set_up()
    server = make(app, settings)

    async def run() -> None:
        announcing = asyncio.create_task(_when_started(server, ready))
        await server.serve(sockets=[listener])
        announcing.cancel()

    asyncio.run(run())
    logs.log("ended")


async def _when_started(server: Server, ready: Callable[[], None]) -> None:
    while not server.started:
        await asyncio.sleep(0.02)
    ready()


def start(settings: Settings, say: Callable[[str], None]) -> None:
    """All of ``ownchat serve``: a model where there is none, the first key, and then serve until a signal.

    ``say`` gets what a person wants to read. Raises :class:`~ownchat.errors.UserError` for what cannot be.
    """
    from ownchat.serve.app import create_app

    _allow_many_connections()
    listener = listen(settings)  # first: a port that is taken is said before anything is fetched
    if not Catalogue(settings.home, settings.upstreams).list():
        from ownchat.model.load import resolve_base

        say("no model yet: the starter is fetched")
        resolve_base("starter")
    app = create_app(settings)
    _check_names(app.state.services)
    app.state.runner.claim()  # a second server on this folder is refused
    services: Services = app.state.services
    if (token := services.keys.first()) is not None:
        _show(token, settings, say)
    if settings.webhooks:
        _show_webhooks(settings, say)
    names = [entry.id for entry in services.catalogue.list()]

    def ready() -> None:
        more = "" if len(names) <= SHOWN else f" and {len(names) - SHOWN} more"
        say(f"models: {', '.join(names[:SHOWN])}{more}")
        say(f"ownchat serves {url(settings, listener)} (Ctrl-C ends it)")

    serve(app, settings, listener, ready)


def _check_names(services: Services) -> None:
    """Raise for a model of another server that one of this machine would hide, since they have one name."""
    own = {entry.id for entry in services.catalogue.list() if entry.upstream is None}
    if hidden := own & set(services.settings.upstreams):
        raise ConfigError(
            f"{min(hidden)} is a model of this machine already", where="--upstream", fix="give it another name"
        )


def _allow_many_connections() -> None:
    """Raise the number of open files from the usual 1,024 to what is allowed: each client is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _show_webhooks(settings: Settings, say: Callable[[str], None]) -> None:
    """What receivers verify with, once; the addresses without their paths, which may be secrets."""
    secret, is_new = webhooks.secret_of(settings.home)
    if is_new and os.environ.get("JOURNAL_STREAM"):
        say(f"the secret of the webhooks stands in {webhooks.secret_path(settings.home)}")
    elif is_new:
        say(f"secret of the webhooks (shown this once, kept in {webhooks.secret_path(settings.home)}): {secret}")
    say(f"webhooks go to {', '.join(dict.fromkeys(urlsplit(url).hostname or '' for url in settings.webhooks))}")


def _show(token: str, settings: Settings, say: Callable[[str], None]) -> None:
    """The first key, once; into a file of its owner's where standard output is the system's journal."""
    if os.environ.get("JOURNAL_STREAM"):
        path = settings.home / "server" / "first-key"
        with owner_only():
            write_atomic(path, token + "\n")
        say(f"the first key stands in {path}: read it and remove the file")
        return
    say(f"key (kept nowhere, shown this once): {token}")
    say("more keys: ownchat keys create OWNER")
