"""The connections of one answer of a server, which another thread can end at any time. No torch here."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from threading import Event
from typing import Any


class Left(Exception):
    """Nobody waits for the answer any more."""


class Connection:
    """An HTTP client for one answer, whose connections another thread can end, also before the answer has begun.

    A plain close would leave the reading thread waiting, and the server at work; and the SDK would ask again.
    """

    def __init__(self) -> None:
        from openai import DefaultHttpxClient

        self.left = Event()
        self.client: Any = DefaultHttpxClient(event_hooks={"request": [self._before]})
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
