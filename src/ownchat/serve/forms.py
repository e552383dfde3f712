"""``multipart/form-data`` read as it comes: fields are small and stay in memory, the one file goes to the disk.

Parts may come in any order. Nothing is taken from a client but bytes: the name of a file is only ever shown.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from ownchat.serve.errors import ApiError

MOST_FIELDS, LONGEST_FIELD = 16, 4096
ENVELOPE_BYTES = 64 * 1024  # boundaries, headers and fields around a file
CLOSE = {"connection": "close"}  # what is left of the body is not read


@dataclass
class Form:
    """What a form held. The file's bytes are at ``path``; ``num_bytes`` of them, with their hashes in hex."""

    path: Path
    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None  # as the client said it; None: there was no file
    num_bytes: int = 0
    sha256: str = ""
    md5: str = ""


async def receive_form(request: Request, path: Path, *, file: str, most_bytes: int, idle_seconds: float) -> Form:
    """Read a form whose file is in the field ``file`` and write that to ``path`` (made, mode 0600).

    ``idle_seconds``: longest pause between two parts of the body. Raises :class:`~ownchat.serve.errors.ApiError` 400
    for what is no such form, 408 for a body that stops coming, 413 for a file of more than ``most_bytes``, 415 for
    another content type. What was written stays at ``path``: removing it is the caller's.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ApiError(
            415, "send a form: 'content-type: multipart/form-data' with its boundary", code="unsupported_media_type"
        )
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > most_bytes + ENVELOPE_BYTES:
        raise _too_large(most_bytes)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        try:
            reader = _Reader(Form(path), handle, file, most_bytes)
            parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
            async for chunk in _chunks(request, idle_seconds):
                parser.write(chunk)
            parser.finalize()
        except FormParserError as error:
            raise _bad("it ends too early, or its parts are not as its boundary says") from error
        if not reader.ended:
            raise _bad("it ends too early")
        handle.flush()
        await asyncio.to_thread(os.fsync, handle.fileno())
    return reader.form()


async def _chunks(request: Request, idle_seconds: float) -> AsyncIterator[bytes]:
    stream = request.stream().__aiter__()
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ApiError(408, "the body did not come in time", code="timeout", headers=CLOSE) from error
        except ClientDisconnect:
            raise
        yield chunk


class _Reader:
    """Takes the parser's calls, part by part."""

    def __init__(self, form: Form, handle: BinaryIO, file: str, most_bytes: int) -> None:
        self._form, self._handle, self._file, self._most = form, handle, file, most_bytes
        self._sha256, self._md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._name = ""
        self._text = bytearray()
        self.ended = False

    def callbacks(self) -> dict[str, object]:
        names = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
        )
        return {f"on_{name}": getattr(self, f"_{name}") for name in names} | {"on_end": self._end}

    def form(self) -> Form:
        self._form.sha256, self._form.md5 = self._sha256.hexdigest(), self._md5.hexdigest()
        return self._form

    def _part_begin(self) -> None:
        self._disposition, self._name = b"", ""
        self._text.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == self._file:
            if self._form.filename is not None:
                raise _bad(f"there are two parts '{self._file}'")
            self._form.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        elif len(self._form.fields) >= MOST_FIELDS:
            raise _bad("it has too many fields")
        elif self._name in self._form.fields:
            raise _bad(f"there are two fields '{self._name[:64]}'")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        part = data[start:end]
        if self._name == self._file:
            self._form.num_bytes += len(part)
            if self._form.num_bytes > self._most:
                raise _too_large(self._most)
            self._sha256.update(part)
            self._md5.update(part)
            self._handle.write(part)
            return
        self._text += part
        if len(self._text) > LONGEST_FIELD:
            raise _bad("a field is too long (a file belongs into the field " + f"'{self._file}')")

    def _part_end(self) -> None:
        if self._name != self._file:
            self._form.fields[self._name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self.ended = True


def _bad(why: str) -> ApiError:
    return ApiError(400, f"the form cannot be read: {why}", code="invalid_form", headers=CLOSE)


def _too_large(most_bytes: int) -> ApiError:
    return ApiError(413, f"the file is larger than {most_bytes} bytes", code="request_too_large", headers=CLOSE)
