"""Answers that are held to a schema, through the SDK and an engine that can."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel
from transformers import AutoTokenizer

from ownchat.generate.policy import Filter, Policy
from ownchat.tokenizer.render import prompt_ids

if TYPE_CHECKING:
    from conftest import Gateway

ASKED: Any = [{"role": "user", "content": "Where is my parcel?"}]


class Parcel(BaseModel):
    city: Literal["Oslo", "Rome"]
    days: Literal[1, 2, 3]


TOOL: Any = {"type": "function", "function": {"name": "track", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}}, "required": ["city"],
    "additionalProperties": False}}}  # fmt: skip


@pytest.fixture
def gateway(serving: Any, tiny_model: Path, teach: Any, tmp_path: Path) -> Gateway:
    """A model that was taught the object: JSON allows white space without an end, and a random one writes it."""
    directory = shutil.copytree(tiny_model, tmp_path / "taught")
    prompt = prompt_ids(AutoTokenizer.from_pretrained(directory), ASKED)
    teach(directory, prompt, '{"city": "Rome", "days": 2}')
    found: Gateway = serving(model=directory, engine="llamacpp", slots=2)
    return found


@pytest.fixture
def client(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)


def test_parse_gives_the_object(client: OpenAI) -> None:
    asked: Any = {"model": "starter", "messages": ASKED, "response_format": Parcel, "max_tokens": 100}
    rome = Parcel(city="Rome", days=2)
    assert client.chat.completions.parse(**asked).choices[0].message.parsed == rome
    with client.chat.completions.stream(**asked) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == rome
    reply = client.responses.parse(
        model="starter", input=ASKED[0]["content"], text_format=Parcel, max_output_tokens=100
    )
    assert reply.output_parsed == rome
    # what it was taught is not what the schema wants: it is held to the schema all the same
    oslo: Any = {"type": "object", "properties": {"city": {"const": "Oslo"}}, "required": ["city"],
                 "additionalProperties": False}  # fmt: skip
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": oslo}}
    held = client.chat.completions.create(**(asked | {"response_format": form})).choices[0]
    assert held.message.content.startswith('{"city": "Oslo"')


def test_a_demanded_call_is_made(gateway: Gateway, client: OpenAI, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    blank = [str(id) for id in range(3, len(tokenizer)) if not tokenizer.decode([id]).strip()]
    asked: Any = {"model": "starter", "messages": ASKED, "max_tokens": 100, "tools": [TOOL],
                  "logit_bias": dict.fromkeys(blank, -100)}  # fmt: skip
    choice: Any = {"type": "function", "function": {"name": "track"}}
    named = client.chat.completions.create(**asked, tool_choice=choice).choices[0]
    (call,) = named.message.tool_calls
    assert call.function.name == "track" and json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
    assert named.finish_reason == "stop"
    forced = client.chat.completions.create(**asked, tool_choice="required").choices[0]
    (call,) = forced.message.tool_calls
    assert call.function.name == "track" and json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
    assert forced.finish_reason == "tool_calls" and forced.message.content is None
    chunks = list(client.chat.completions.create(**asked, tool_choice="required", stream=True))
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert any(chunk.choices[0].delta.tool_calls for chunk in chunks)
    cut = client.chat.completions.create(**(asked | {"max_tokens": 4}), tool_choice="required").choices[0]
    assert cut.finish_reason == "length" and cut.message.tool_calls is None and cut.message.content
    # what the policy holds back is a text, and no call with a refusal for its arguments
    conduct = gateway.services.conducts.of(gateway.services.catalogue.find("starter"))
    conduct.filter = Filter(Policy(deny=("city",), refusal="Not from me."))
    for demanded in (choice, "required"):
        (held,) = client.chat.completions.create(**asked, tool_choice=demanded).choices
        assert held.finish_reason == "content_filter" and held.message.tool_calls is None
        assert held.message.content.endswith("Not from me.")


BOMBS: list[dict[str, Any]] = [
    {"type": "array", "items": {"type": "string"}, "maxItems": 10**9},
    {"enum": [str(number) for number in range(2000)]},
    {"type": "string", "description": "x" * 200_000},
    {"anyOf": [{"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(6000)}}]},
]


def test_schemas_that_cost_too_much_are_refused(client: OpenAI) -> None:
    for schema in BOMBS:
        refuse(client, schema)


def refuse(client: OpenAI, schema: dict[str, Any]) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="starter", messages=ASKED, response_format=form)
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": schema}}
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="starter", messages=ASKED, tools=[tool])
