"""The body of a request as a model; what the model does not know is named, never forwarded."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ownchat.serve.errors import ApiError

MOST_NAMED = 8  # unknown fields in one warning
MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512  # OpenAI's limits of metadata
LONGEST_EDIT = 100_000  # characters of metadata.edited, which holds a whole answer
MOST_STOPS, LONGEST_STOP, MOST_BIASES = 4, 1000, 1024

STRICT = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)

# Hints to OpenAI's own machinery (abuse, caches, billing). They change no answer, so that no warning is due.
HINTS = frozenset(
    ("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "service_tier")
)

M = TypeVar("M", bound=BaseModel)


def listed(value: Any) -> Any:
    """A text as a list of it; what else it is stays."""
    return [value] if isinstance(value, str) else value


Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Stops = Annotated[Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None, BeforeValidator(listed)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Biases = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MOST_BIASES),
]


class Sampled(BaseModel):
    """How answers are sampled. ``top_k``, ``min_p`` and ``repetition_penalty`` are not OpenAI's; vLLM's clients send
    them too."""

    model_config = STRICT

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=5)
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Biases | None = None
    n: int | None = Field(None, ge=1, le=8)
    stop: Stops = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)


class Update(BaseModel):
    """The body that gives a stored completion new metadata."""

    model_config = STRICT

    metadata: dict[str, str] | None = Field(...)


async def read(request: Request, model: type[M], *, strict: bool = False) -> tuple[M, tuple[str, ...]]:
    """The body as ``model``, and the names of its fields that have no effect.

    That it is JSON which can be read in one way only, the middleware has checked. Raises
    :class:`~ownchat.serve.errors.ApiError` 400 that names the field; with ``strict`` also for one that is not known.
    """
    try:
        value = json.loads(await request.body())
    except ValueError as error:
        raise ApiError(400, "the body is not JSON", code="invalid_json") from error
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    unknown = tuple(sorted(set(value) - set(model.model_fields) - HINTS))
    if unknown and strict:
        raise ApiError(
            400, f"Unrecognized request argument supplied: {named(unknown)}", param=named(unknown[:1]),
            code="unknown_parameter",
        )  # fmt: skip
    try:
        return model.model_validate(value), unknown
    except ValidationError as error:
        raise explained(error) from error


def explained(error: ValidationError) -> ApiError:
    """The first thing that is wrong, without the value: it may be private, and it may be long."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    # the members of a union stand in the place too ("list[Part]", "NamedTool", "str"): they are no fields
    place = [str(part) for part in first["loc"] if isinstance(part, int) or re.fullmatch(r"[a-z_0-9]{1,64}", str(part))]
    param = ".".join(part for part in place if part not in ("str", "int", "list", "dict")) or None
    if first["type"] == "missing":
        message, code = f"you must give the parameter '{param}'", "missing_required_parameter"
    else:
        words = str(first["msg"]).removeprefix("Value error, ")
        message = f"'{param}': {words}" if param else words
        code = "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    return ApiError(400, message, param=param, code=code)


def named(names: tuple[str, ...] | list[str]) -> str:
    """Names that somebody chose, fit for a header and a message.

    >>> named(["top_a", "x\\r\\nset-cookie: a"])
    'top_a, x__set-cookie__a'
    """
    shown = [re.sub(r"[^A-Za-z0-9_.\[\]-]", "_", name)[:LONGEST_KEY] for name in names[:MOST_NAMED]]
    return ", ".join(shown) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def check_metadata(metadata: dict[str, str] | None) -> dict[str, str]:
    """OpenAI's limits: 16 pairs, keys of 64 characters, values of 512; ``edited`` may hold a whole answer."""
    metadata = {} if metadata is None else metadata
    if len(metadata) > MOST_PAIRS:
        raise ApiError(400, f"'metadata': at most {MOST_PAIRS} pairs", param="metadata", code="invalid_value")
    for key, value in metadata.items():
        if len(key) > LONGEST_KEY or len(value) > (LONGEST_EDIT if key == "edited" else LONGEST_VALUE):
            raise ApiError(
                400, f"'metadata': keys have at most {LONGEST_KEY} characters, values {LONGEST_VALUE}",
                param="metadata", code="invalid_value",
            )  # fmt: skip
    return dict(metadata)


def without_nul(value: Any) -> Any:
    """A JSON value without NUL characters, which PostgreSQL stores in no text."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, dict):
        return {without_nul(key): without_nul(item) for key, item in value.items()}
    return [without_nul(item) for item in value] if isinstance(value, list | tuple) else value
