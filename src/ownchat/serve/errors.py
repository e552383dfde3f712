"""Errors in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``, all four keys always.

What the SDK makes of a status: 400 BadRequest, 401 Authentication, 403 PermissionDenied, 404 NotFound, 429 RateLimit,
5xx InternalServer; it asks again by itself after 408, 409, 429 and 5xx.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from ownchat.errors import UserError, printable
from ownchat.serve.catalogue import UnknownModel

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}
CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large", 415: "unsupported_media_type"}
LONGEST_MESSAGE = 1000


class ApiError(Exception):
    """A refusal or a failure as the client is told it. ``param`` names the field that is wrong.

    >>> ApiError(404, "there is no such model", code="model_not_found", param="model").body()["error"]["code"]
    'model_not_found'
    """

    def __init__(
        self,
        status: int,
        message: str,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, printable(message)[:LONGEST_MESSAGE], param, code
        self.type = TYPES.get(status, type) if type == "invalid_request_error" else type
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON that the client gets; also what stands in ``data:`` when a stream breaks off."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), status_code=self.status, headers=self.headers)


def of_exception(error: Exception) -> ApiError:
    """What a client is told of an exception: a person's mistake in its words, a fault of ours without any."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), code=CODES.get(error.status_code), headers=error.headers)
    if isinstance(error, UnknownModel):
        return ApiError(404, f"{error.what}. {error.fix}", param="model", code="model_not_found")
    if isinstance(error, UserError):
        told = f"{error.what}. {error.fix}".strip(" .")
        if error.where and os.sep in error.where:  # a path is for the log; what is told may repeat it
            told = told.replace(error.where, os.path.basename(error.where))
        return ApiError(400, told, code="invalid_value")
    if isinstance(error, (InterfaceError, OperationalError, PoolTimeout)):
        return ApiError(
            503, "the server's database does not answer; try again later", code="server_is_overloaded",
            headers={"retry-after": "2"},
        )  # fmt: skip
    if isinstance(error, MemoryError):
        return ApiError(503, "memory ran out; try a shorter request", code="server_is_overloaded", type="server_error")
    return ApiError(500, "the server failed; its log has more under the request's id", code="internal_error")


def install(app: FastAPI) -> None:
    """Give every error of the routes OpenAI's shape. What else is raised, the outermost middleware catches."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        refusal = of_exception(error)
        if refusal.status == 405:
            refusal.headers["allow"] = ", ".join(sorted(_methods(request.app.routes, request.scope["path"])))
        _note(request.scope, refusal)
        return refusal.response()

    for kind in (ApiError, HTTPException, RequestValidationError, UserError):
        app.add_exception_handler(kind, answer)


def _methods(routes: Iterable[Any], path: str) -> set[str]:
    """What is allowed at a path: each method has a route of its own, and the framework names those of one."""
    found: set[str] = set()
    for route in routes:
        if hasattr(route, "original_router"):  # what FastAPI includes
            found |= _methods(route.original_router.routes, path)
        elif route.path_regex.match(path) is not None:
            found |= route.methods or set()
    return found


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error from a middleware."""
    _note(scope, error)
    await error.response()(scope, receive, send)


def _note(scope: Scope, error: ApiError) -> None:
    """For the log: codes are ours, so they hold nothing of a client's."""
    scope.get("state", {}).get("log", {})["code"] = error.code


def _of_validation(error: RequestValidationError) -> ApiError:
    """The first thing that is wrong; never the value itself, which may be private, but for short plain ones."""
    faults = error.errors()
    first = faults[0] if faults else {"loc": (), "msg": "invalid request", "type": ""}
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    param = ".".join(part[:64] for part in place[:8]) or None
    missing = first["type"] == "missing"
    message = f"'{param}': {first['msg']}" if param else str(first["msg"])
    if missing and param:
        message = f"you must give the parameter '{param}'"
    return ApiError(400, message, param=param, code="missing_required_parameter" if missing else "invalid_value")
