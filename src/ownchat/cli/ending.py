"""How the program ends when it is told to: once, in order, with one line and exit code 130."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from types import TracebackType

from ownchat.errors import Interrupted

CODE = 130  # what shells give for Ctrl-C
REPEATED_SECONDS = 1.0  # one request may come as several signals: of timeout(1), of a batch system, of a hurried hand
SIGNALS = (signal.SIGINT, signal.SIGTERM)

_asked: float | None = None  # time.monotonic() of the last request that was not a repetition


def listen() -> None:
    """Let SIGTERM raise :class:`~ownchat.errors.Interrupted`, as Ctrl-C raises ``KeyboardInterrupt``."""
    signal.signal(signal.SIGTERM, terminate)  # stages that save something on the way have handlers of their own
    sys.excepthook = _unless_asked
    atexit.register(_ignore)  # first, so that it runs last: after it nothing can hang


def terminate(*_: object) -> None:
    """SIGTERM came: raise, unless it only says once more what is being done."""
    if not _is_repeated():
        raise Interrupted("ended by a signal; the same command goes on or begins again")


def quietly() -> None:
    """All is done or said: a signal changes nothing now, and one that comes much later ends a process that hangs."""
    global _asked
    _asked = time.monotonic()
    for number in SIGNALS:
        signal.signal(number, _at_once)


def _is_repeated() -> bool:
    global _asked
    now = time.monotonic()
    if _asked is not None and now - _asked < REPEATED_SECONDS:
        return True
    _asked = now
    return False


def _at_once(*_: object) -> None:
    if not _is_repeated():
        os._exit(CODE)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _unless_asked(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """No traceback for a signal that came in the last lines of the program."""
    if issubclass(kind, KeyboardInterrupt | Interrupted):
        os._exit(CODE)
    sys.__excepthook__(kind, error, trace)
