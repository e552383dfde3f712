"""The Responses API through the SDK: its objects, its events in their order, and histories that the server keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import OpenAI

if TYPE_CHECKING:
    from conftest import Gateway

QUESTION = "Can I change my delivery address?"


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)


def ask(client: OpenAI, **more: Any) -> Any:
    return client.responses.create(**({"model": "starter", "input": QUESTION, "max_output_tokens": 12} | more))


def test_a_response_is_the_answer_of_chat(client: OpenAI) -> None:
    chat = client.chat.completions.create(
        model="starter", messages=[{"role": "system", "content": "Be short."}, {"role": "user", "content": QUESTION}],
        max_tokens=12,
    )  # fmt: skip
    reply = ask(client, instructions="Be short.")
    assert reply.output_text == chat.choices[0].message.content and reply.object == "response"
    assert chat.usage is not None and reply.usage.total_tokens == chat.usage.total_tokens
    parts: Any = [{"role": "developer", "content": "Be short."},
                  {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]  # fmt: skip
    assert ask(client, input=parts).output_text == reply.output_text
    cut = chat.choices[0].finish_reason == "length"
    assert reply.status == ("incomplete" if cut else "completed")
    assert not cut or reply.incomplete_details.reason == "max_output_tokens"


def test_events_come_in_order_and_make_the_same_object(client: OpenAI) -> None:
    events = list(ask(client, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-4:] in (
        ["response.output_text.done", "response.content_part.done", "response.output_item.done", f"response.{end}"]
        for end in ("completed", "incomplete")
    )
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    whole = ask(client)
    assert "".join(event.delta for event in events[4:-4]) == whole.output_text
    last = events[-1].response
    assert last.output_text == whole.output_text and last.usage == whole.usage and last.status == whole.status
    with client.responses.stream(model="starter", input=QUESTION, max_output_tokens=12, temperature=0.0) as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert "".join(texts) == whole.output_text


def test_logprobs_are_included_where_they_are_asked_for(client: OpenAI) -> None:
    reply = ask(client, include=["message.output_text.logprobs"], top_logprobs=2)
    tokens = reply.output[0].content[0].logprobs
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == reply.output_text
    assert all(len(token.top_logprobs) == 2 for token in tokens)
    assert not ask(client).output[0].content[0].logprobs


def test_a_conversation_goes_on_from_what_was_stored(client: OpenAI) -> None:
    first = ask(client, store=True, metadata={"topic": "x"})
    again = client.responses.retrieve(first.id)
    assert again.output_text == first.output_text and again.metadata == {"topic": "x"}
    second = ask(client, input="And then?", previous_response_id=first.id, store=True)
    chat = client.chat.completions.create(
        model="starter", max_tokens=12,
        messages=[{"role": "user", "content": QUESTION}, {"role": "assistant", "content": first.output_text},
                  {"role": "user", "content": "And then?"}],
    )  # fmt: skip
    assert second.output_text == chat.choices[0].message.content and second.previous_response_id == first.id
    third = ask(client, input="Why?", previous_response_id=second.id)
    assert third.usage.input_tokens > second.usage.input_tokens
    items = list(client.responses.input_items.list(first.id))
    assert [item.content[0].text for item in items] == [QUESTION]  # type: ignore[union-attr]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, previous_response_id=first.id)
    assert caught.value.code == "previous_response_not_found"
    assert ask(client, store=False).id and len(items) == 1


def test_tokens_are_counted_without_an_answer(client: OpenAI) -> None:
    counted = client.responses.input_tokens.count(model="starter", input=QUESTION)
    assert counted.input_tokens == ask(client).usage.input_tokens


@pytest.mark.parametrize(
    "change",
    [
        {"input": []},
        {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]},
        {"input": [{"type": "function_call_output", "output": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"tools": [{"type": "web_search"}]},
        {"background": True},
        {"truncation": "auto"},
        {"max_output_tokens": 0},
        {"text": {"format": {"type": "json_schema"}}},
        {"previous_response_id": "resp_nothing"},
    ],
)
def test_what_cannot_be_is_a_bad_request(client: OpenAI, change: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        ask(client, **change)
