"""JSON that may be looked at: not too deep, every key once, every number finite, no half characters."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from ownchat.serve.errors import ApiError

MOST_DEPTH = 64
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def check_json(body: bytes) -> None:
    """Raise :class:`~ownchat.serve.errors.ApiError` (400) for a body that parsers could read in two ways, or choke on.

    Duplicate keys: what one part of a system checks, another would not read. NaN, Infinity and ``1e999`` are no JSON.
    Takes time in proportion to the body, whatever stands in it.
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _bad("it is not UTF-8") from error
    except RecursionError as error:  # the parser stops by itself far above what we allow
        raise _too_deep() from error
    except ValueError as error:
        raise _bad("it cannot be parsed") from error
    _walk(value, texts=SURROGATE.search(body) is not None)


def _walk(value: Any, *, texts: bool) -> None:
    """Depth, numbers and, with ``texts``, characters of every value inside."""
    level: list[Any] = [[value]]
    depth = 0
    while level:
        if depth > MOST_DEPTH:
            raise _too_deep()
        deeper: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                if texts:
                    _check_texts(container)
                items = container.values()
            else:
                items = container
            if texts:
                _check_texts(items)
            for item in items:
                if isinstance(item, (dict, list)):
                    deeper.append(item)
                elif isinstance(item, float) and math.isinf(item):
                    raise _bad("a number is too large")
        level, depth = deeper, depth + 1


def _check_texts(items: Any) -> None:
    """Half a character (a lone surrogate) cannot be encoded again: it would break the answer or the database."""
    for item in items:
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError as error:
                raise _bad("a text holds half a character (a lone surrogate)") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _bad("a key stands there twice")
    return found


def _no_constant(name: str) -> float:
    raise _bad(f"{name} is not a number of JSON")


def _too_deep() -> ApiError:
    return _bad(f"it is nested more than {MOST_DEPTH} deep")


def _bad(why: str) -> ApiError:
    return ApiError(400, f"the body is not the JSON that is wanted: {why}", code="invalid_json")
