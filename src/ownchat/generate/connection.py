"""The connections of one answer of a server, which another thread can end at any time. No torch here."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

LOOK_SECONDS = 0.05  # between two looks at cancel

T = TypeVar("T")


class Left(Exception):
    """Nobody waits for the answer any more."""


class Connection:
    """An HTTP client for one answer, whose connections another thread can end, also before the answer has begun.

    A plain close would leave the reading thread waiting, and the server at work; and the SDK would ask again.
    """

    def __init__(self) -> None:
        from openai import DefaultHttpxClient

        self.left = Event()
        self.client: Any = DefaultHttpxClient(
            follow_redirects=False, event_hooks={"request": [self._before]}, verify=_certificates()
        )
        self._streams: list[Any] = []

    def hang_up(self) -> None:
        """End what is connected and let nothing else be."""
        self.left.set()
        for stream in list(self._streams):
            with suppress(Exception):  # it is over already
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def _before(self, request: Any) -> None:
        """Before each request, those of retries too."""
        if self.left.is_set():
            raise Left
        request.extensions["trace"] = self._connected

    def _connected(self, event: str, info: Mapping[str, Any]) -> None:
        """What httpcore reports; an encrypted connection takes the place of the plain one."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._streams.append(info["return_value"])
            if self.left.is_set():  # hang_up may have come before
                self.hang_up()
                raise Left


@cache
def _certificates() -> Any:
    """What every client would read anew, which takes 60 ms: the authorities that servers are checked against."""
    from openai import DefaultHttpxClient

    library = DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]  # httpx, or its successor
    return importlib.import_module(library).create_ssl_context()


def interruptible(ask: Callable[[Any], T], cancel: Event) -> T:
    """``ask(http_client)`` in a thread of its own; raises what it raises, and :class:`Left` as soon as ``cancel`` is
    set."""
    came: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
    connection = Connection()

    def run() -> None:
        try:
            came.put((True, ask(connection.client)))
        except BaseException as error:  # raised again in the caller's thread
            came.put((False, error))
        finally:
            connection.client.close()

    Thread(target=run, name="question to a server", daemon=True).start()
    while True:
        try:
            good, found = came.get(timeout=LOOK_SECONDS)
        except Empty:
            if cancel.is_set():
                connection.hang_up()
                raise Left from None
            continue
        if good:
            result: T = found
            return result
        raise found
