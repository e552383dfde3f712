"""Schemas that an answer can be held to, and those that would be weakened or blow up."""

from __future__ import annotations

from typing import Any

import pytest

from ownchat.errors import UserError
from ownchat.generate.schema import check_schema


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {}, {"type": ["string", "null"]}, {"const": 3}, {"type": "string", "pattern": "^a+$"}, nested(10),
        {"type": "object", "properties": {"tree": {"$ref": "#"}}, "additionalProperties": False},
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}},
        {"type": "object", "additionalProperties": {"type": "number"}, "title": "T", "description": "d"},
    ],
)  # fmt: skip
def test_what_is_taken(schema: dict[str, Any]) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    "schema, message",
    [
        ({"type": "string", "pattern": "a+"}, "whole text"),
        ({"type": "string", "pattern": "^a|b$"}, "whole text"),
        ({"type": "string", "pattern": "^a+$", "maxLength": 3}, "together"),
        ({"type": "array", "uniqueItems": True}, '"uniqueItems" cannot be held'),
        ({"not": {"type": "string"}}, '"not" cannot'),
        ({"type": "text"}, "unknown type"),
        *(({"type": odd}, "unknown type") for odd in (5, None, [{}], {}, [], True, [["string"]])),
        *(({"format": odd}, "a format") for odd in ([], None, {}, 5)),
        *(({"$defs": odd}, "is an object") for odd in (5, None, [], "x")),
        *(({"required": odd}, "list of names") for odd in (5, None, [1], "x")),
        *(({"minimum": odd}, "is a number") for odd in ("1", None, [], True)),
        ({"type": "string", "format": "hostname"}, "format"),
        ({"type": "array", "maxItems": 10**9}, "whole number"),
        ({"type": "array", "minItems": -1}, "whole number"),
        ({"type": "string", "maxLength": True}, "whole number"),
        ({"enum": list(range(2000))}, "more than"),
        ({"enum": []}, "enum is a list"),
        ({"anyOf": []}, "anyOf is a list"),
        ({"properties": {str(n): {} for n in range(600)}}, "more than"),
        ({"properties": []}, "is an object"),
        ({"items": 3}, "is an object"),
        ({"$ref": "https://example.com/schema"}, "leads elsewhere"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"$ref": "#", "minLength": 3}, "stands alone"),
        ({"const": "x" * 70_000}, "bytes"),
        (nested(40), "deeper"),
        (nested(5000), "deeper|not JSON|bytes"),
        ({"const": float}, "not JSON"),
    ],
)  # fmt: skip
def test_what_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        check_schema(schema)
    assert refused.value.where.startswith("schema")
