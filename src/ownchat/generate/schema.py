"""Which JSON schemas an answer can be held to. What an engine would follow only in part is refused, with the place.

The accepted keywords are those that the grammar of llama.cpp (LLGuidance) enforces to the letter; a schema with others
would be weakened in silence. Sizes are bounded: a schema becomes a grammar, and small schemas can become huge ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ownchat.errors import UserError

MOST_BYTES, MOST_DEPTH, MOST_CHOICES, MOST_PROPERTIES, MOST_REPEATS = 64_000, 16, 1_000, 500, 2_000

NOTES = {"title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated"}  # say nothing
KEYWORDS = {
    "type", "enum", "const", "anyOf", "$ref", "$defs", "definitions", "properties", "required", "additionalProperties",
    "items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength", "pattern", "format",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
}  # fmt: skip
TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}
FORMATS = {"date-time", "date", "time", "email", "uuid", "ipv4"}


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise :class:`~ownchat.errors.UserError` for a schema that is none, is too large, or cannot be kept whole.

    >>> check_schema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    >>> check_schema({"type": "string", "pattern": "[0-9]"})
    Traceback (most recent call last):
    ...
    ownchat.errors.UserError: schema: a pattern must stand for the whole text
    What to do: write it as ^...$
    """
    try:
        size = len(json.dumps(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise _refused("it is not JSON") from error
    if size > MOST_BYTES:
        raise _refused(f"it has {size:,} bytes, more than {MOST_BYTES:,}")
    counts = {"choices": 0, "properties": 0}
    _check(schema, schema, "", 0, counts)
    if counts["choices"] > MOST_CHOICES or counts["properties"] > MOST_PROPERTIES:
        raise _refused(f"more than {MOST_CHOICES:,} choices or {MOST_PROPERTIES:,} properties")


def _check(schema: Any, whole: Mapping[str, Any], place: str, depth: int, counts: dict[str, int]) -> None:
    if schema is True or schema == {}:
        return
    if not isinstance(schema, Mapping):
        raise _refused("a schema is an object", place)
    if depth > MOST_DEPTH:
        raise _refused(f"nested deeper than {MOST_DEPTH}", place)
    if unknown := sorted(set(schema) - KEYWORDS - NOTES):
        raise _refused(f'"{unknown[0]}" cannot be held', place, "leave it out, and check it in the answer")
    for name in ("$defs", "definitions", "properties"):
        parts = schema.get(name, {})
        if not isinstance(parts, Mapping):
            raise _refused(f"{name} is an object", place)
        counts["properties"] += len(parts)
        for key, part in parts.items():
            _check(part, whole, f"{place}/{name}/{key}", depth + 1, counts)
    for name in ("items", "additionalProperties"):
        if name in schema and schema[name] is not False:
            _check(schema[name], whole, f"{place}/{name}", depth + 1, counts)
    for name in ("anyOf", "prefixItems"):
        if name in schema:
            parts = schema[name]
            if not isinstance(parts, list) or not parts:
                raise _refused(f"{name} is a list", place)
            counts["choices"] += len(parts)
            for number, part in enumerate(parts):
                _check(part, whole, f"{place}/{name}/{number}", depth + 1, counts)
    _check_values(schema, whole, place, counts)


def _check_values(schema: Mapping[str, Any], whole: Mapping[str, Any], place: str, counts: dict[str, int]) -> None:
    """The keywords that hold no schemas."""
    given = schema.get("type", [])
    types = given if isinstance(given, list) else [given]
    if ("type" in schema and not types) or not all(isinstance(one, str) and one in TYPES for one in types):
        raise _refused("an unknown type", place, f"types are {', '.join(sorted(TYPES))}")
    if "enum" in schema:
        if not isinstance(schema["enum"], list) or not schema["enum"]:
            raise _refused("enum is a list", place)
        counts["choices"] += len(schema["enum"])
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise _refused("required is a list of names", place)
    for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if not isinstance(schema.get(name, 0), int | float) or isinstance(schema.get(name, 0), bool):
            raise _refused(f"{name} is a number", place)
    for name in ("minItems", "maxItems", "minLength", "maxLength"):
        value = schema.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_REPEATS:
            raise _refused(f"{name} is a whole number up to {MOST_REPEATS:,}", place)
    pattern = schema.get("pattern")
    if pattern is not None:
        if not isinstance(pattern, str) or len(pattern) > MOST_REPEATS:
            raise _refused("a pattern is a text", place)
        if not (pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith(r"\$")) or "|" in pattern:
            raise _refused("a pattern must stand for the whole text", place, "write it as ^...$")
        if {"minLength", "maxLength", "format"} & set(schema):
            raise _refused("a pattern together with lengths or a format cannot be held", place)
    if "format" in schema and not (isinstance(schema["format"], str) and schema["format"] in FORMATS):
        raise _refused("a format that cannot be held", place, f"formats are {', '.join(sorted(FORMATS))}")
    if "$ref" in schema:
        _check_reference(schema["$ref"], whole, place)
        if set(schema) - NOTES - {"$ref", "$defs", "definitions"}:
            raise _refused("a $ref stands alone", place)


def _check_reference(reference: Any, whole: Any, place: str) -> None:
    """A reference leads to a place in the same schema."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise _refused("a $ref leads elsewhere", place, "use #/$defs/NAME")
    found = whole
    for part in reference.removeprefix("#").removeprefix("/").split("/") if reference != "#" else []:
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or part not in found:
            raise _refused("a $ref leads nowhere", place)
        found = found[part]


def _refused(what: str, place: str = "", fix: str = "") -> UserError:
    return UserError(what, where=f"schema{place}"[:200], fix=fix)
