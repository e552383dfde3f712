"""What ``POST /v1/embeddings`` and ``POST /v1/moderations`` take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from ownchat.serve.protocol.body import STRICT, listed
from ownchat.serve.protocol.chat import ModelId


class EmbeddingRequest(BaseModel):
    """The body; texts only, since ids would be those of another vocabulary."""

    model_config = STRICT

    model: ModelId
    input: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100_000)]],
        Field(min_length=1, max_length=2048),  # of the list: behind the next line it would meet anything
        BeforeValidator(listed),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: None = None


class ModerationRequest(BaseModel):
    """The body, as far as it is looked at."""

    model_config = STRICT

    input: Any
    model: str | None = None
