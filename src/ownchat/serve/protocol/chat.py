"""What ``POST /v1/chat/completions`` takes."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from ownchat.serve.protocol.body import STRICT, Sampled

MOST_MESSAGES, MOST_TOOLS = 2048, 128
MOST_SCHEMA_CHARS, MOST_SCHEMA_NODES, MOST_REPEATS, MOST_CHOICES = 100_000, 5_000, 10_000, 1_000


Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
ModelId = Annotated[str, Field(max_length=256)]


def check_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema of bounded cost: text, nodes, choices and repetitions; else a ``ValueError``."""
    if len(json.dumps(schema)) > MOST_SCHEMA_CHARS:
        raise ValueError(f"the schema is longer than {MOST_SCHEMA_CHARS:,} characters")
    waiting: list[Any] = [schema]
    nodes = choices = 0
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict):
            waiting += node if isinstance(node, list) else ()
            continue
        nodes += 1
        choices += len(node["enum"]) if isinstance(node.get("enum"), list) else 0
        for word in ("maxItems", "minItems", "maxLength", "minLength", "minProperties", "maxProperties"):
            if isinstance(node.get(word), int | float) and node[word] > MOST_REPEATS:
                raise ValueError(f"{word} of the schema is more than {MOST_REPEATS:,}")
        waiting += node.values()
    if nodes > MOST_SCHEMA_NODES or choices > MOST_CHOICES:
        raise ValueError(f"the schema has more than {MOST_SCHEMA_NODES:,} parts or {MOST_CHOICES:,} enum values")
    return schema


Schema = Annotated[dict[str, Any], AfterValidator(check_schema)]


def check_tools(names: list[str], choice: Any, named: str | None) -> None:
    """A ``ValueError`` for two tools of one name, and for a choice that cannot be met. ``named``: which it names."""
    if len(set(names)) != len(names):
        raise ValueError("two tools have one name")
    if named is not None and named not in names:
        raise ValueError("tool_choice names a function that is not among the tools")
    if choice not in (None, "none", "auto") and not names:
        raise ValueError("tool_choice needs tools")


class Part(BaseModel):
    """A piece of a message's content; only text can be read."""

    model_config = STRICT

    type: str
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _is_text(self) -> Part:
        if self.type not in ("text", "refusal", "input_text", "output_text"):
            raise ValueError(f"a part of type {self.type[:40]!r} cannot be read: the models here read text only")
        if (self.refusal if self.type == "refusal" else self.text) is None:
            raise ValueError(f"a part of type {self.type!r} needs its text")
        return self

    @property
    def words(self) -> str:
        """The text of it."""
        return (self.refusal if self.type == "refusal" else self.text) or ""


class CalledFunction(BaseModel):
    """The name of a function, and its arguments as JSON text."""

    model_config = STRICT

    name: Name
    arguments: str = ""


class ToolCall(BaseModel):
    """A call that the assistant made."""

    model_config = STRICT

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(BaseModel):
    """A message of any role."""

    model_config = STRICT

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = Field(None, max_length=MOST_TOOLS)
    tool_call_id: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _fits_its_role(self) -> ChatMessage:
        if self.role == "assistant":
            if self.content is None and not self.tool_calls and self.refusal is None:
                raise ValueError("an assistant's message needs content or tool_calls")
        elif self.content is None or self.content == []:
            raise ValueError(f"a message of role {self.role} needs content")
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a message of role tool needs tool_call_id")
        return self

    def plain(self) -> dict[str, Any]:
        """The message as ownchat's chat templates take it: text, and arguments as values where they are JSON."""
        role = {"developer": "system", "function": "tool"}.get(self.role, self.role)
        content = self.content
        if isinstance(content, list):
            content = "\n".join(part.words for part in content)
        message: dict[str, Any] = {"role": role, "content": content if content is not None else self.refusal or ""}
        if self.name is not None:
            message["name"] = self.name
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function",
                 "function": {"name": call.function.name, "arguments": _value(call.function.arguments)}}
                for call in self.tool_calls
            ]  # fmt: skip
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


def _value(arguments: str) -> Any:
    """Arguments as templates want them; text that is no JSON object stays text."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


class Function(BaseModel):
    """A function that the model may call."""

    model_config = STRICT

    name: Name
    description: str | None = Field(None, max_length=10_000)
    parameters: Schema | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A tool; only functions can be offered."""

    model_config = STRICT

    type: Literal["function"]
    function: Function


class NamedFunction(BaseModel):
    """Of a choice: the function's name."""

    model_config = STRICT

    name: str


class NamedTool(BaseModel):
    """The one function that is to be called."""

    model_config = STRICT

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(BaseModel):
    """A schema with its name."""

    model_config = STRICT

    name: Name
    description: str | None = None
    schema_: Schema | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """Text, any JSON object, or JSON that follows a schema."""

    model_config = STRICT

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("type json_schema needs json_schema: {name, schema}")
        return self

    @property
    def wanted(self) -> dict[str, Any] | None:
        """The schema that the answer must follow."""
        if self.type == "text":
            return None
        given = self.json_schema.schema_ if self.json_schema is not None else None
        return {"type": "object"} if given is None else given


class StreamOptions(BaseModel):
    """What a stream tells besides the answer."""

    model_config = STRICT

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # without effect: tokens are sent as they come


class ChatRequest(Sampled):
    """The body."""

    model: ModelId
    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=MOST_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    modalities: list[Literal["text"]] | None = None

    @model_validator(mode="after")
    def _fits(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        named = self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else None
        check_tools([tool.function.name for tool in self.tools or ()], self.tool_choice, named)
        return self
