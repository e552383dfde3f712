"""The server's log: one JSON object a line on standard error, with no word of what was asked or answered."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

from ownchat.errors import printable

NAME = "ownchat.serve"
LONGEST = 500  # characters of a value


class JsonLines(logging.Formatter):
    """``{"time", "level", "event", ...}``; a line break in a value cannot begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": printable(record.getMessage())[:LONGEST],
        }
        fields: dict[str, Any] = getattr(record, "fields", {})
        for name, value in fields.items():
            line[name] = printable(value)[:LONGEST] if isinstance(value, str) else value
        if record.exc_info and record.exc_info[1] is not None:
            line |= described(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True, default=str)


def described(error: BaseException) -> dict[str, Any]:
    """What of an exception may be logged: its type and where it came from. Its message may hold people's text."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    where = [f"{frame.filename.rsplit('/site-packages/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": type(error).__name__, "where": where}


def set_up(stream: TextIO | None = None) -> None:
    """Send the server's and uvicorn's lines to ``stream``; what is logged elsewhere in libraries only from WARNING."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in ((NAME, logging.INFO), ("uvicorn", logging.WARNING), ("opentelemetry", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def log(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """One line with these fields. Give ids, names of ours and figures, never text of people."""
    logging.getLogger(NAME).log(level, event, exc_info=error, extra={"fields": fields})
