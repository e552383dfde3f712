"""SIGINT and SIGTERM: finish the step, save, end. A second one ends at once."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any


class StopRequest:
    """Use as a context manager around the loop; ``requested`` becomes true when a signal came, or at ``deadline``.

    ``deadline``: of ``time.monotonic``. ``name``: what asked. Outside the main thread (a library user's worker) signals
    cannot be caught. ``repeated``: one request comes as several signals (a batch system sends it to every process, and
    torchrun passes its own on), so a second one ends nothing.
    """

    def __init__(self, deadline: float | None = None, *, repeated: bool = False) -> None:
        self.name, self._deadline, self._repeated = "", deadline, repeated
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        if not self.name and self._deadline is not None and time.monotonic() >= self._deadline:
            self.name = "the time is up"
        return bool(self.name)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        if not self._repeated:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
