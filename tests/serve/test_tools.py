"""Calls in what a model writes: found wherever the text is cut, and forced where they are demanded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openai import OpenAI

from ownchat.errors import UserError
from ownchat.serve.tools import Call, CallFinder, described, forced_calls, forced_schema, knows_tools

if TYPE_CHECKING:
    from conftest import Gateway

ADD = '{"name": "add", "arguments": {"a": 1}}'
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "track",
            "description": "Where a parcel is.",
            "parameters": {
                "type": "object",
                "properties": {"number": {"type": "integer"}},
                "required": ["number"],
                "additionalProperties": False,
            },
        },
    }
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Just words, 1 < 2.", ["Just words, 1 < 2."]),
        (f"<tool_call>{ADD}</tool_call>", [Call("add", '{"a": 1}')]),
        (f"Well.\n<tool_call>\n{ADD}\n</tool_call>\n", ["Well.", Call("add", '{"a": 1}')]),
        (f"<tool_call>{ADD}", [Call("add", '{"a": 1}')]),
        (f"<tool_call>[{ADD}, {ADD}]</tool_call>", [Call("add", '{"a": 1}'), Call("add", '{"a": 1}')]),
        (f"<tool_call>{ADD}</tool_call>\n<tool_call>{ADD}</tool_call>", [Call("add", '{"a": 1}')] * 2),
        ("<tool_call>not JSON</tool_call> so", ["<tool_call>not JSON</tool_call> so"]),
        ('<tool_call>{"name": "rm"}</tool_call>', ['<tool_call>{"name": "rm"}</tool_call>']),
        ("a <tool_cal", ["a <tool_cal"]),
    ],
)
def test_calls_are_found_wherever_the_text_is_cut(text: str, expected: list[str | Call]) -> None:
    def joined(found: list[str | Call]) -> list[str | Call]:
        result: list[str | Call] = []
        for one in found:
            if isinstance(one, str) and result and isinstance(result[-1], str):
                result[-1] += one
            else:
                result.append(one)
        return result

    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1, 3):
            finder = CallFinder({"add"})
            found = [*finder.push(text[:first]), *finder.push(text[first:second]), *finder.push(text[second:])]
            assert joined([*found, *finder.finish()]) == expected, (first, second)


def test_one_call_where_only_one_is_wanted() -> None:
    finder = CallFinder({"add"}, parallel=False)
    assert [*finder.push(f"<tool_call>[{ADD}, {ADD}]</tool_call><tool_call>{ADD}</tool_call>"), *finder.finish()] == [
        Call("add", '{"a": 1}')
    ]


def test_schemas_of_forced_calls_keep_their_references() -> None:
    assert forced_schema(TOOLS, "track") == TOOLS[0]["function"]["parameters"]
    point = {"type": "object", "properties": {"at": {"$ref": "#/$defs/P"}}, "$defs": {"P": {"type": "integer"}}}
    two = [*TOOLS, {"type": "function", "function": {"name": "draw", "parameters": point}}]
    schema = forced_schema(two, None)
    assert schema["anyOf"][1]["properties"]["arguments"]["properties"]["at"] == {"$ref": "#/$defs/1_P"}
    assert schema["$defs"] == {"1_P": {"type": "integer"}}
    assert forced_calls(ADD, None) == [Call("add", '{"a": 1}')] and forced_calls(ADD[:-3], None) == []


def test_messages_of_a_template_without_tools_say_what_there_is() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "track", "arguments": {"number": 1}}}
    told = described(
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [call]}], TOOLS
    )
    assert told[0]["role"] == "system" and '"track"' in told[0]["content"]
    assert told[2]["content"] == '<tool_call>{"name": "track", "arguments": {"number": 1}}</tool_call>'
    assert knows_tools("{% if tools %}x{% endif %}") and not knows_tools("{{ messages }}")


# ------------------------------------------------------------------------------------------------ on a server

ASKED: Any = [{"role": "user", "content": "Where is parcel 7?"}]
HERMES = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
)


@pytest.fixture(scope="module", params=["template with tools", "template without"])
def calling_model(
    request: pytest.FixtureRequest, tiny_model: Path, teach: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """``tiny_model``, taught in a second to answer one question with a call."""
    from transformers import AutoTokenizer

    from ownchat.tokenizer.render import prompt_ids

    directory = shutil.copytree(tiny_model, tmp_path_factory.mktemp("calling") / "model")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    if request.param == "template with tools":
        tokenizer.chat_template = HERMES + tokenizer.chat_template
        tokenizer.save_pretrained(directory)
        ids = prompt_ids(tokenizer, ASKED, TOOLS)
    else:
        ids = prompt_ids(tokenizer, described(ASKED, TOOLS))
    teach(directory, ids, 'One moment.\n<tool_call>{"name": "track", "arguments": {"number": 7}}</tool_call>')
    return directory


def test_a_model_that_calls_is_understood(serving: Any, calling_model: Path) -> None:
    gateway: Gateway = serving(model=calling_model)
    client = OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)
    asked: Any = {"model": "starter", "messages": ASKED, "tools": TOOLS, "max_tokens": 200}
    (choice,) = client.chat.completions.create(**asked).choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and choice.message.content == "One moment."
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == ("function", "track", {"number": 7})
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls" and final.message.content == "One moment."
    assert final.message.tool_calls is not None
    assert final.message.tool_calls[0].function.arguments == call.function.arguments
    plain = client.chat.completions.create(**asked, tool_choice="none").choices[0]
    assert plain.finish_reason != "tool_calls" and plain.message.tool_calls is None

    tool = {"type": "function", **TOOLS[0]["function"]}
    reply = client.responses.create(model="starter", input=ASKED[0]["content"], tools=[tool], max_output_tokens=200)
    assert [item.type for item in reply.output] == ["message", "function_call"] and reply.status == "completed"
    assert reply.output_text == "One moment." and json.loads(reply.output[1].arguments) == {"number": 7}
    with client.responses.stream(
        model="starter", input=ASKED[0]["content"], tools=[tool], max_output_tokens=200
    ) as events:
        kinds = [event.type for event in events]
        assert events.get_final_response().output[1].arguments == reply.output[1].arguments
    assert "response.function_call_arguments.delta" in kinds and "response.function_call_arguments.done" in kinds
    # the call and its result go back as OpenAI's clients send them
    history = [
        *ASKED,
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Köln"},
    ]
    assert client.chat.completions.create(**{**asked, "messages": history, "max_tokens": 3}).choices[0].message
    items: Any = [
        {"role": "user", "content": "Where is parcel 7?"},
        *[item.model_dump(exclude_none=True) for item in reply.output],
        {"type": "function_call_output", "call_id": reply.output[1].call_id, "output": "Köln"},
    ]
    assert client.responses.create(model="starter", input=items, tools=[tool], max_output_tokens=3).output


@pytest.mark.parametrize("odd", [5, None, [], [1], "x"])
@pytest.mark.parametrize("word", ["$defs", "definitions"])
def test_definitions_that_are_none_are_refused(word: str, odd: Any) -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": {word: odd}}} for name in ("a", "b")]
    with pytest.raises(UserError, match="is an object"):
        forced_schema(tools, None)
