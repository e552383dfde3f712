"""What every request passes before it meets a route, from the outside in: :class:`Edge`, :class:`HostCheck`, CORS
where origins are listed, :class:`~ownchat.serve.auth.Authentication`, :class:`BodyGuard`.

Plain ASGI: a stream passes through without being collected, and what a client does not send is not waited for.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ownchat.serve import auth
from ownchat.serve.admission import Admission, Gone
from ownchat.serve.errors import ApiError, of_exception, refuse
from ownchat.serve.json_guard import check_json
from ownchat.serve.logs import log
from ownchat.serve.metrics import Metrics
from ownchat.serve.settings import Settings
from ownchat.serve.tracing import Tracing

HEAD_BYTES = 32 * 1024  # of a request's address and headers
LARGE = 256 * 1024  # bytes; larger bodies are checked in a thread, so that others do not wait
FORMS = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts")  # paths that read their bodies themselves, onto the disk
CLOSED = 499  # the status in the log where the client left first (nginx's)
UNMATCHED = "unmatched"
CLOSE = {"connection": "close"}  # what else comes on this connection is not read

SAFETY = {  # an answer is text of a model: no browser may take it for a page, keep it, or show it in a frame
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}


class Edge:
    """Outermost: the request's id, headers on every answer, the access log, metrics, and faults of ours as a 500."""

    def __init__(
        self, app: ASGIApp, admission: Admission, metrics: Metrics, settings: Settings, tracing: Tracing | None = None
    ) -> None:  # fmt: skip
        self._app, self._admission, self._metrics, self._settings = app, admission, metrics, settings
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id = f"req_{secrets.token_hex(16)}"
        fields: dict[str, Any] = {}
        state["log"] = fields  # routes put model, tokens and the like there; never text
        started = time.monotonic()
        status: int | None = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in SAFETY.items():
                    headers.setdefault(name, value)
                if (caller := state.get("caller")) is not None:
                    for name, value in self._admission.headers(caller).items():
                        headers.setdefault(name, value)
            # a reader that takes nothing would hold its slot for ever
            try:
                async with asyncio.timeout(self._settings.idle_seconds):
                    await send(message)
            except TimeoutError as error:
                raise Stalled from error

        try:
            _check_head(scope)
            await self._app(scope, receive, answer)
        except (ClientDisconnect, Gone, Stalled):
            status = CLOSED
        except ApiError as error:  # of this middleware: those of routes are answered further in
            await refuse(error, scope, receive, answer)
        except Exception as error:
            log("fault", level=logging.ERROR, error=error, request_id=request_id)
            if status is not None:  # the client has to see that the answer is not whole
                raise BrokenAnswer from None
            await refuse(of_exception(error), scope, receive, answer)
        finally:
            self._record(scope, state, status, time.monotonic() - started)

    def _record(self, scope: Scope, state: dict[str, Any], status: int | None, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        if route in auth.OPEN and status == 200:
            return  # asked every few seconds by whatever watches
        status = CLOSED if status is None else status
        method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "OPTIONS", "HEAD") else "OTHER"
        self._metrics.request(route, method, status, seconds)
        if status >= 400:
            self._metrics.error(status, state["log"].get("code"))
        caller = state.get("caller")
        fields = {
            **state["log"], "request_id": state["request_id"], "method": method, "route": route, "status": status,
            "ms": round(seconds * 1000, 1), "key": None if caller is None else caller.key_id,
        }  # fmt: skip
        log("request", **fields)
        if self._tracing is not None:
            self._tracing.request(fields, seconds, state.get("generation"), Headers(scope=scope))


def _check_head(scope: Scope) -> None:
    """The parser counts only heads that come in pieces."""
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    size += sum(len(name) + len(value) for name, value in scope["headers"])
    if size > HEAD_BYTES:
        raise ApiError(
            431, f"address and headers are longer than {HEAD_BYTES} bytes", code="request_too_large", headers=CLOSE
        )


class Stalled(Exception):
    """A client takes none of its answer any more."""


class BrokenAnswer(Exception):
    """An answer ended in its middle; what was wrong stands in the log above."""


class HostCheck:
    """Refuses requests whose Host header is not ours: a page whose name was pointed at this machine (DNS rebinding)."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in auth.OPEN:
            hosts = Headers(scope=scope).getlist("host")
            if len(hosts) != 1 or not self._settings.allows_host(hosts[0]):
                error = ApiError(
                    403, "this host name is not one of this server; start it with --allow-host NAME",
                    type="permission_error", code="host_not_allowed",
                )  # fmt: skip
                await refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyGuard:
    """Reads a body within its limits of size and time, and lets pass only JSON that is safe to read."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS") or _is_form(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
            if body:
                _check_kind(Headers(scope=scope))
                if len(body) > LARGE:
                    await asyncio.to_thread(check_json, body)
                else:
                    check_json(body)
        except ApiError as error:
            await refuse(error, scope, receive, send)
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()  # comes when the client leaves
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        most = self._settings.max_body_bytes
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > most:
            raise _too_large(most)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.upload_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])  # also where no length was said, or a wrong one
                    if size > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise ApiError(408, "the body did not come in time", code="timeout", headers=CLOSE) from error


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than {most} bytes", code="request_too_large", headers=CLOSE)


def _is_form(scope: Scope) -> bool:
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    return kind == "multipart/form-data" and FORMS.fullmatch(scope["path"]) is not None


def _check_kind(headers: Headers) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page elsewhere may send text/plain and forms here without being asked first
        raise ApiError(415, "send JSON, with 'content-type: application/json'", code="unsupported_media_type")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "a compressed body is not taken", code="unsupported_media_type")
