"""What ``POST /v1/responses`` takes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from ownchat.serve.protocol.body import STRICT
from ownchat.serve.protocol.chat import (
    MOST_MESSAGES,
    MOST_TOOLS,
    Function,
    ModelId,
    Name,
    Part,
    Schema,
    check_tools,
)

Include = Literal["message.output_text.logprobs", "reasoning.encrypted_content"]
MESSAGE, CALL, RESULT, THOUGHT = "message", "function_call", "function_call_output", "reasoning"


class Item(BaseModel):
    """A piece of the input: a message, a call that the model made, its result, or a thought (which is left out)."""

    model_config = STRICT

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    id: str | None = Field(None, max_length=200)
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Part] | None = None
    call_id: str | None = Field(None, max_length=200)
    name: Name | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Item:
        wanted = {MESSAGE: ("role", "content"), CALL: ("call_id", "name", "arguments"), RESULT: ("call_id", "output")}
        for field in wanted.get(self.type, ()):
            if getattr(self, field) is None:
                raise ValueError(f"an item of type {self.type} needs {field}")
        return self


class FunctionTool(Function):
    """A function that the model may call; other kinds of tools would have to be run here, and none are."""

    type: Literal["function"]

    def plain(self) -> dict[str, Any]:
        """As chat completions and chat templates have it."""
        return {"type": "function", "function": self.model_dump(exclude_none=True, exclude={"type"})}


class NamedFunction(BaseModel):
    """The one function that is to be called."""

    model_config = STRICT

    type: Literal["function"]
    name: str


class Format(BaseModel):
    """Text, any JSON object, or JSON that follows a schema."""

    model_config = STRICT

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    description: str | None = None
    schema_: Schema | None = Field(None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Format:
        if self.type == "json_schema" and (self.schema_ is None or self.name is None):
            raise ValueError("type json_schema needs name and schema")
        return self

    @property
    def wanted(self) -> dict[str, Any] | None:
        """The schema that the answer must follow."""
        return {"json_object": {"type": "object"}, "json_schema": self.schema_}.get(self.type)


class Text(BaseModel):
    """How the text of the answer has to look."""

    model_config = STRICT

    format: Format | None = None


class StreamOptions(BaseModel):
    """Without effect: events are sent as they come."""

    model_config = STRICT

    include_obfuscation: bool | None = None


class ResponseRequest(BaseModel):
    """The body."""

    model_config = STRICT

    model: ModelId
    input: str | list[Item] = Field(max_length=4_000_000)
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    text: Text | None = None
    tools: list[FunctionTool] | None = Field(None, max_length=MOST_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = Field(None, max_length=200)
    include: list[Include] | None = None
    truncation: Literal["disabled"] | None = None  # nothing is left out in silence
    background: Literal[False] | None = None  # an answer is made while somebody waits
    conversation: None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _fits(self) -> ResponseRequest:
        if isinstance(self.input, list) and not 1 <= len(self.input) <= MOST_MESSAGES:
            raise ValueError(f"input has 1 to {MOST_MESSAGES} items")
        named = self.tool_choice.name if isinstance(self.tool_choice, NamedFunction) else None
        check_tools([tool.name for tool in self.tools or ()], self.tool_choice, named)
        return self


class CountRequest(BaseModel):
    """The body of ``POST /v1/responses/input_tokens``."""

    model_config = STRICT

    model: ModelId
    input: str | list[Item] | None = None
    instructions: str | None = None
    tools: list[FunctionTool] | None = Field(None, max_length=MOST_TOOLS)
    previous_response_id: str | None = Field(None, max_length=200)
