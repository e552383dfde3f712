"""The official SDK, unmodified, against a real server: its types read every answer, its errors every refusal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

if TYPE_CHECKING:
    from conftest import Gateway

ASKED: Any = [{"role": "user", "content": "Can I change my delivery address?"}]


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0, timeout=60)


def ask(client: OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**({"model": "starter", "messages": ASKED, "max_tokens": 12} | more))


def test_a_chat_is_the_engines_own_greedy_answer(gateway: Gateway, client: OpenAI) -> None:
    from ownchat.generate.engine import Request

    reply = ask(client)
    services = gateway.services
    with services.pool.lease(services.catalogue.find("starter")) as loaded:
        ids = loaded.render(ASKED)
        deltas = list(loaded.engine.stream(Request(ids=ids, max_tokens=12, adapter=loaded.adapter)))
    assert reply.object == "chat.completion" and reply.model == "starter" and reply.id.startswith("chatcmpl-")
    (choice,) = reply.choices
    assert choice.message.content == "".join(delta.text for delta in deltas) != ""
    assert choice.finish_reason == deltas[-1].finish_reason
    usage = deltas[-1].usage
    assert usage is not None and reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (len(ids), usage.completion_tokens)
    assert reply.system_fingerprint


def test_a_stream_is_the_same_answer_in_pieces(client: OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert (
        "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == whole.choices[0].message.content
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [one.choices[0].finish_reason for one in chunks if one.choices]
    assert reasons[-1] == whole.choices[0].finish_reason and not any(reasons[:-1])
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(one.usage is None for one in chunks[:-1]) and len({one.id for one in chunks}) == 1
    plain = list(ask(client, stream=True))
    assert all(one.usage is None and one.choices for one in plain), "nobody asked for the usage"


def test_the_sdks_stream_helper_reads_it(client: OpenAI) -> None:
    stop = ask(client).choices[0].message.content[-2:]  # the helper wants answers that are whole
    with client.chat.completions.stream(model="starter", messages=ASKED, stop=stop, max_completion_tokens=12) as stream:
        kinds = {one.type for one in stream}
        final = stream.get_final_completion()
    assert final.choices[0].message.content == ask(client, stop=stop).choices[0].message.content
    assert {"chunk", "content.delta"} <= kinds


def test_logprobs_are_those_of_the_tokens(client: OpenAI) -> None:
    reply = ask(client, logprobs=True, top_logprobs=3)
    tokens = reply.choices[0].logprobs.content
    text = b"".join(bytes(token.bytes) for token in tokens).decode()
    assert text == reply.choices[0].message.content
    for token in tokens:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        best = token.top_logprobs[0]
        assert (best.token, best.logprob) == pytest.approx((token.token, token.logprob)), "greedy takes the likeliest"
    streamed = [
        token for one in ask(client, logprobs=True, top_logprobs=3, stream=True)
        for token in (one.choices[0].logprobs.content if one.choices[0].logprobs else [])
    ]  # fmt: skip
    assert [token.logprob for token in streamed] == pytest.approx([token.logprob for token in tokens])
    assert ask(client).choices[0].logprobs is None


def test_sampling_with_a_seed_repeats_and_n_differ(client: OpenAI) -> None:
    first = ask(client, temperature=1.5, seed=7, n=3)
    again = ask(client, temperature=1.5, seed=7, n=3)
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices] and len(set(texts)) > 1
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    joined = ["", "", ""]
    for chunk in ask(client, temperature=1.5, seed=7, n=3, stream=True):
        joined[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert joined == texts
    assert ask(client, temperature=1.5, seed=-7).choices, "OpenAI's seeds may be negative"


def test_stop_bias_and_limits_reach_the_engine(client: OpenAI) -> None:
    whole = ask(client).choices[0].message.content
    assert len(whole) > 3
    stopped = ask(client, stop=[whole[2]])
    assert stopped.choices[0].message.content == whole[: whole.index(whole[2])]
    assert stopped.choices[0].finish_reason == "stop"
    biased = ask(client, logit_bias={"40": 100}, max_tokens=5)
    assert len(set(biased.choices[0].message.content)) == 1, "one token again and again"
    calm = ask(client, logit_bias={"40": 100}, max_tokens=5, presence_penalty=2, frequency_penalty=2)
    assert calm.choices
    cut = ask(client, max_tokens=10**9)
    assert cut.usage is not None and cut.usage.total_tokens <= 512, "no more than the context"
    assert ask(client, max_tokens=1).choices[0].finish_reason == "length"


def test_parts_of_text_and_developers_are_understood(client: OpenAI) -> None:
    parts = [{"role": "developer", "content": "Be short."},
             {"role": "user", "content": [{"type": "text", "text": ASKED[0]["content"]}]}]  # fmt: skip
    plain = [{"role": "system", "content": "Be short."}, *ASKED]
    assert ask(client, messages=parts).choices[0].message == ask(client, messages=plain).choices[0].message


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, None),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"top_logprobs": 3}, None),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"logit_bias": {"x": 1}}, None),
        ({"max_tokens": 0}, "max_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tool_choice": "required"}, None),
        ({"messages": [{"role": "user", "content": "a word " * 600}]}, "messages"),
        ({"metadata": {"key": "x" * 513}}, "metadata"),
    ],
)
def test_what_cannot_be_is_a_bad_request_that_names_it(
    client: OpenAI, change: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **change)
    body: Any = caught.value.body
    assert body.keys() == {"message", "type", "param", "code"} and body["message"]
    assert param is None or body["param"] == param, body
    assert caught.value.request_id and "word word" not in str(body)
    with pytest.raises(openai.BadRequestError):
        list(ask(client, **change, stream=True))


def test_refusals_have_the_sdks_own_classes(gateway: Gateway, client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, model="../../etc/passwd")
    assert unknown.value.code == "model_not_found"  # type: ignore[attr-defined]
    with pytest.raises(openai.AuthenticationError):
        ask(client.with_options(api_key="sk-wrong"))
    with pytest.raises(openai.PermissionDeniedError):
        client.with_options(api_key=gateway.key("infer")).models.delete("starter")
    with pytest.raises(openai.BadRequestError, match="base"):
        client.models.delete("starter")
    with pytest.raises(openai.BadRequestError) as moderated:
        client.moderations.create(input="x")
    assert moderated.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="not taught to embed"):
        client.embeddings.create(model="starter", input="x")


def test_fields_that_are_not_known_are_named(gateway: Gateway, client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="starter", messages=ASKED, max_tokens=2, user="u", extra_body={"best_of": 3, "a\r\nb: c": 1}
    )
    assert raw.headers["x-ownchat-warning"] == "ignored: a__b__c, best_of"
    assert raw.headers["x-ownchat-model"] and "AI model" in raw.headers["x-ownchat-disclosure"]
    assert "x-ownchat-warning" not in client.chat.completions.with_raw_response.create(
        model="starter", messages=ASKED, max_tokens=2, user="u"
    ).headers  # fmt: skip


def test_fields_that_are_not_known_are_named_wherever_a_body_is_read(gateway: Gateway) -> None:
    stored = gateway.call("POST", "/v1/chat/completions", gateway.chat(store=True)).json()["id"]
    for path, body in (
        ("responses/input_tokens", {"model": "starter", "input": "x"}), ("moderations", {"input": "x"}),
        (f"chat/completions/{stored}", {"metadata": {"a": "b"}}),
    ):  # fmt: skip
        answer = gateway.call("POST", f"/v1/{path}", {**body, "odd": 1})
        assert answer.headers["x-ownchat-warning"] == "ignored: odd", path
        assert "x-ownchat-warning" not in gateway.call("POST", f"/v1/{path}", body).headers, path


def test_a_strict_server_refuses_them(serving: Any) -> None:
    gateway = serving(strict=True)
    for path, body in (("chat/completions/x", {"metadata": {}}), ("moderations", {"input": "x"})):
        assert gateway.call("POST", f"/v1/{path}", {**body, "odd": 1}).error["code"] == "unknown_parameter"
    strict = OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)
    with pytest.raises(openai.BadRequestError, match="best_of") as caught:
        ask(strict, extra_body={"best_of": 3})
    assert caught.value.code == "unknown_parameter"
    assert ask(strict, user="somebody").choices


def test_models_are_listed_and_found(client: OpenAI) -> None:
    listed = list(client.models.list())
    assert [model.id for model in listed] == ["starter"] and listed[0].object == "model"
    assert client.models.retrieve("starter") == listed[0]
    assert "AI model" in listed[0].ownchat["disclosure"]  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("a/b")


def test_async_clients_at_once_get_the_same_answer(gateway: Gateway) -> None:
    async def run() -> list[str | None]:
        async with AsyncOpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0) as client:

            async def streamed() -> str:
                stream = await client.chat.completions.create(
                    model="starter", messages=ASKED, max_tokens=12, stream=True
                )
                return "".join([one.choices[0].delta.content or "" async for one in stream])

            async def whole() -> str | None:
                reply = await client.chat.completions.create(model="starter", messages=ASKED, max_tokens=12)
                return reply.choices[0].message.content

            return list(await asyncio.gather(*[streamed() for _ in range(3)], *[whole() for _ in range(3)]))

    assert len(set(asyncio.run(run()))) == 1


# --------------------------------------------------------------------------------------------- bare completions


def test_a_completion_goes_on_from_text_and_from_ids(gateway: Gateway, client: OpenAI) -> None:
    services = gateway.services
    with services.pool.lease(services.catalogue.find("starter")) as loaded:
        ids = loaded.tokenizer.encode("The parcel has")
    text = client.completions.create(model="starter", prompt="The parcel has", max_tokens=6, temperature=0)
    same = client.completions.create(model="starter", prompt=ids, max_tokens=6, temperature=0)
    assert text.choices[0].text == same.choices[0].text != "" and text.object == "text_completion"
    many = client.completions.create(
        model="starter", prompt=["The parcel has", "Can I"], n=2, max_tokens=3, temperature=0
    )
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert many.choices[0].text == many.choices[1].text == text.choices[0].text[: len(many.choices[0].text)]
    streamed = client.completions.create(model="starter", prompt=ids, max_tokens=6, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == text.choices[0].text
    with pytest.raises(openai.BadRequestError, match="vocabulary"):
        client.completions.create(model="starter", prompt=[10**8], max_tokens=1)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="starter", prompt="a", suffix="b")


@pytest.mark.parametrize("top", [1, 3])
def test_an_echoed_prompt_has_the_scores_of_its_tokens(gateway: Gateway, client: OpenAI, top: int) -> None:
    """What an evaluation harness asks: log-probabilities of a text, and whether greedy decoding would write it."""
    import torch

    services = gateway.services
    with services.pool.lease(services.catalogue.find("starter")) as loaded:
        ids = loaded.tokenizer.encode("The pump makes a noise. Please close the valve" * 2)
        with torch.no_grad():
            expected = loaded.engine.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    reply = client.completions.create(model="starter", prompt=ids, echo=True, logprobs=top, max_tokens=1, temperature=0)
    found = reply.choices[0].logprobs
    assert found is not None and found.token_logprobs is not None and found.top_logprobs is not None
    assert len(found.token_logprobs) == len(ids) + 1 and found.token_logprobs[0] is None
    own = [float(expected[place, id]) for place, id in enumerate(ids[1:])]
    assert found.token_logprobs[1:-1] == pytest.approx(own, abs=1e-4)
    best = [float(value) for value in expected[:-1].max(-1).values]
    assert [max(tops.values()) for tops in found.top_logprobs[1:-1]] == pytest.approx(best, abs=1e-4)
    assert all(len(tops) >= top for tops in found.top_logprobs[1:]), "parts of characters do not look alike"
    only = client.completions.create(model="starter", prompt=ids, echo=True, logprobs=0, max_tokens=0)
    assert only.choices[0].logprobs is not None and only.choices[0].logprobs.token_logprobs is not None
    assert len(only.choices[0].logprobs.token_logprobs) == len(ids)
    assert only.usage is not None and only.usage.completion_tokens == 0


def test_offsets_are_places_in_the_text(client: OpenAI) -> None:
    """Also behind characters of several tokens, and behind a control token that is not in the text."""
    end = "<|im_end|>"
    prompt = f"a🙂🙂b ü{end}x Größe"
    reply = client.completions.create(
        model="starter", prompt=prompt, echo=True, logprobs=0, max_tokens=2, logit_bias={"2": 100}
    )
    text, found = reply.choices[0].text, reply.choices[0].logprobs
    assert text == prompt and found is not None and found.tokens and found.text_offset
    assert found.tokens[-1] == end and found.text_offset[-1] == len(text)
    assert any(token.startswith("bytes:") for token in found.tokens), "a character of several tokens"
    for token, offset in list(zip(found.tokens, found.text_offset, strict=True))[:-1]:
        assert token.startswith("bytes:") or text[offset : offset + len(token)] == token, (token, offset)


def test_an_answer_may_be_empty(client: OpenAI) -> None:
    reply = ask(client, logit_bias={"2": 100})  # the end of the turn
    assert reply.choices[0].message.content == "" and reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None and reply.usage.completion_tokens == 1
    chunks = list(ask(client, logit_bias={"2": 100}, stream=True))
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, "stop"]
