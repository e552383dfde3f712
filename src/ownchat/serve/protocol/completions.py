"""What ``POST /v1/completions`` takes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ownchat.serve.protocol.body import Sampled
from ownchat.serve.protocol.chat import ModelId, StreamOptions

MOST_PROMPTS = 64

Id = Annotated[int, Field(ge=0, lt=2**31)]


def _prompts(value: Any) -> Any:
    """A list of prompts, each a text or a list of ids, from all forms that OpenAI allows."""
    if isinstance(value, str) or (isinstance(value, list) and value and all(type(one) is int for one in value)):
        return [value]
    return value


class CompletionRequest(Sampled):
    """The body."""

    model: ModelId
    prompt: Annotated[
        list[str | Annotated[list[Id], Field(min_length=1)]],
        Field(min_length=1, max_length=MOST_PROMPTS),  # of the list: behind the next line it would meet anything
        BeforeValidator(_prompts),
    ]
    suffix: None = None  # no model here was taught to fill in the middle
    best_of: int | None = Field(None, ge=1, le=8)
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _fits(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of must equal n: answers are not ranked here")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens 0 needs echo: true")
        if self.echo and self.stream:
            raise ValueError("echo does not go with stream")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self
