"""How a training process talks: files in its run directory, and nothing else.

``events.jsonl``   what happened (started, resumed, validated, saved, stopped, out_of_memory), one JSON object a line
``metrics.jsonl``  numbers by step
``heartbeat``      process, step and time of the last sign of life, replaced every few seconds
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ownchat.artifacts import write_json

HEARTBEAT_SECONDS = 5.0


class JsonLines:
    """Append JSON objects to a file, each in one write, so that a reader never sees a torn line but the last.

    ``also``: gets every line after it is written (see :mod:`ownchat.monitor.trackers`).
    """

    def __init__(self, path: Path, also: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.path, self._also = path, also
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(path)

    def write(self, **fields: Any) -> None:
        """Append one line; non-finite numbers become null, so that the line stays valid JSON."""
        row = _finite(fields)
        line = json.dumps(row, ensure_ascii=False, default=str) + "\n"
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(line)
        if self._also is not None:
            self._also(row)


class Events(JsonLines):
    """``events.jsonl``: every line has ``time`` (Unix seconds) and ``event``."""

    def emit(self, event: str, **fields: Any) -> None:
        self.write(time=round(time.time(), 3), event=event, **fields)


class Heartbeat:
    """A sign of life for those who watch from outside (the server, a scheduler)."""

    def __init__(self, path: Path) -> None:
        self.path, self._last = path, 0.0

    def beat(self, step: int, *, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._last >= HEARTBEAT_SECONDS:
            self._last = now
            write_json(self.path, {"pid": os.getpid(), "step": step, "time": round(time.time(), 3)})


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a JSON Lines file; empty when there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def _drop_torn_line(path: Path) -> None:
    """A process killed while writing leaves half a line: take it away before going on."""
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with open(path, "rb+") as handle:
            handle.truncate(content.rfind(b"\n") + 1)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
