"""Who asks, and whether they may. A key is needed on every path by default; :data:`OPEN` names those without."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ownchat.serve.errors import ApiError, refuse
from ownchat.serve.keys import LONGEST, Caller, Keys

OPEN = ("/healthz", "/readyz")  # whether it lives, and nothing else


class Authentication:
    """Middleware: nothing behind it sees a request without a valid key, also no body is read for one.

    The key travels as ``Authorization: Bearer KEY``, nowhere else: what stands in a URL ends up in logs.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            try:
                scope["state"]["caller"] = await self._caller(Headers(scope=scope))
            except ApiError as error:
                await refuse(error, scope, receive, send)
                return
        elif scope["type"] == "websocket":  # there are none
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    async def _caller(self, headers: Headers) -> Caller:
        given = headers.getlist("authorization")
        if not given:
            raise _refused("you did not give a key: send the header 'Authorization: Bearer KEY'", None)
        if len(given) > 1:
            raise _refused("there are two Authorization headers")
        scheme, _, token = given[0].partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > LONGEST:
            raise _refused("the Authorization header must be 'Bearer KEY'")
        if self._keys.is_remembered(token):
            caller = self._keys.check(token)
        else:
            caller = await asyncio.to_thread(self._keys.check, token)
        if caller is None:
            raise _refused("this key is wrong, expired or revoked")
        return caller


def needs(scope: str) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency of a route: the caller, whose key must have ``scope`` (``admin`` has all)."""

    async def caller(request: Request) -> Caller:  # a plain function would run in a thread
        who: Caller | None = getattr(request.state, "caller", None)
        if who is None:  # a route outside the middleware would be a fault of ours: refuse
            raise _refused("you did not give a key")
        if not who.may(scope):
            raise ApiError(403, f"this key lacks the scope '{scope}'", code="insufficient_permissions")
        return who

    return caller


def _refused(message: str, code: str | None = "invalid_api_key") -> ApiError:
    return ApiError(401, message, code=code, headers={"www-authenticate": "Bearer"})
