"""What the owner of a run has set holds for what is served of it: system prompt, sampling, policy, disclosure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openai import OpenAI
from transformers import AutoTokenizer

from ownchat.generate.policy import Filter, Policy
from ownchat.generate.scope import Scope
from ownchat.tokenizer.render import prompt_ids

if TYPE_CHECKING:
    from conftest import Gateway

ASKED: Any = [{"role": "user", "content": "What is the code?"}]
SYSTEM = "You are the help desk."
ANSWER = (  # long enough that it is held back while it is written
    "Good day to you. Say sesame twice. The parcel has not arrived yet, and the pump makes a noise. Please close the "
    "valve, wait ten minutes and open it again. You can return it within thirty days, free of charge."
)
SETTINGS = """
generate:
  top_p: 0.9
  policy: {deny: [sesame], refusal: "That is not for me to say."}
evaluate:
  card: {contact: help@example.com}
"""


@pytest.fixture
def gateway(serving: Any, serve_home: Path, tiny_model: Path, teach: Any, tmp_path: Path) -> Gateway:
    """A run that was taught to tell a secret, but only under its own system prompt."""
    home = shutil.copytree(serve_home, tmp_path / "home")
    run = home / "runs" / "desk"
    model = shutil.copytree(tiny_model, run / "5-train" / "model")
    prompt = [{"role": "system", "content": SYSTEM}, *ASKED]
    teach(model, prompt_ids(AutoTokenizer.from_pretrained(model), prompt), ANSWER)
    (model / "ownchat.json").write_text(json.dumps({"system": SYSTEM, "base": None}))
    (run / "5-train" / "manifest.json").write_text("{}")
    (run / "config.yaml").write_text(SETTINGS)
    found: Gateway = serving(home=home)
    return found


def test_the_policy_of_a_run_holds_and_is_counted(gateway: Gateway) -> None:
    client = OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)
    asked: Any = {"model": "desk", "messages": ASKED, "max_tokens": 200}
    told = "Good day to you. \n\nThat is not for me to say."
    reply = client.chat.completions.create(**asked, n=2)
    for choice in reply.choices:
        assert choice.message.content is not None and choice.message.content.split() == told.split()
        assert choice.finish_reason == "content_filter"
    chunks = list(client.chat.completions.create(**asked, stream=True, logprobs=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).split() == told.split()
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    logprobs = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    shown = "".join(token.token for one in logprobs for token in one.content or ())
    assert "Good" in shown and "ses" not in shown, "its tokens are withheld with it"
    response = client.responses.create(model="desk", input=ASKED[0]["content"], max_output_tokens=200)
    assert response.status == "incomplete" and response.top_p == 0.9
    assert response.incomplete_details is not None and response.incomplete_details.reason == "content_filter"
    assert 'ownchat_filtered_total{rule="deny"} 4.0' in gateway.services.metrics.text().decode()


def test_the_text_of_a_bare_prompt_is_a_question(gateway: Gateway) -> None:
    services = gateway.services
    conduct = services.conducts.of(services.catalogue.find("starter"))
    conduct.filter = Filter(Policy(out_of_scope=0.5, refusal="No."), scope=Scope(["where is my parcel", "the pump"]))
    client = OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)
    with services.pool.lease(services.catalogue.find("starter")) as loaded:
        far = loaded.tokenizer.encode("Who won the election?")
    asked: Any = {"model": "starter", "max_tokens": 3, "temperature": 0}
    reply = client.completions.create(**asked, prompt=["Where is my parcel?", "Who won the election?"], n=2)
    assert [choice.text == "No." for choice in reply.choices] == [False, False, True, True]
    assert [choice.finish_reason == "content_filter" for choice in reply.choices] == [False, False, True, True]
    assert client.completions.create(**asked, prompt=far).choices[0].text == "No.", "as ids, too"
    scored = client.completions.create(**asked | {"max_tokens": 0}, prompt=far, echo=True, logprobs=0).choices[0]
    assert scored.text == "Who won the election?", "nothing is said there"


def test_the_prompt_of_the_training_is_told_where_it_is_put_in(gateway: Gateway) -> None:
    (gateway.services.settings.home / "runs" / "desk" / "config.yaml").write_text("generate: {prompt: support@2}\n")
    client = OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)
    asked: Any = {"model": "desk", "messages": ASKED, "max_tokens": 30}
    plain = client.chat.completions.with_raw_response.create(**asked)
    assert plain.headers["x-ownchat-system"] == "support@2"
    assert ANSWER.startswith(plain.parse().choices[0].message.content or "nothing"), "which only that prompt brings"
    streamed = client.responses.with_raw_response.create(model="desk", input="Hi", max_output_tokens=1, stream=True)
    assert streamed.headers["x-ownchat-system"] == "support@2"
    streamed.http_response.close()
    own = [{"role": "system", "content": "You are a poet."}, *ASKED]
    for raw in (
        client.chat.completions.with_raw_response.create(**asked | {"messages": own}),
        client.responses.with_raw_response.create(model="desk", input="Hi", instructions="Rhyme.", max_output_tokens=1),
        client.completions.with_raw_response.create(model="desk", prompt="Hi", max_tokens=1),
        client.chat.completions.with_raw_response.create(**asked | {"model": "starter"}),
    ):
        assert "x-ownchat-system" not in raw.headers
    listed: Any = {model.id: model for model in client.models.list()}
    assert listed["desk"].ownchat["system"] == "support@2" and "system" not in listed["starter"].ownchat
    assert SYSTEM not in gateway.call("GET", "/v1/models").body.decode()


def test_users_are_told_of_it(gateway: Gateway) -> None:
    client = OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)
    assert [model.id for model in client.models.list()] == ["starter", "desk"]
    model = client.models.retrieve("desk")
    assert "help@example.com" in model.ownchat["disclosure"]  # type: ignore[attr-defined]
    raw = client.chat.completions.with_raw_response.create(model="desk", messages=ASKED, max_tokens=1)
    assert raw.headers["x-ownchat-disclosure"] == model.ownchat["disclosure"]  # type: ignore[attr-defined]
    other = client.chat.completions.with_raw_response.create(model="starter", messages=ASKED, max_tokens=1)
    assert raw.headers["x-ownchat-model"] != other.headers["x-ownchat-model"]
    (gateway.services.settings.home / "runs" / "desk" / "config.yaml").write_text("generate:\n  policy: {deny: x}\n")
    broken = gateway.call("POST", "/v1/chat/completions", {"model": "desk", "messages": ASKED})
    assert broken.status == 400, "a policy that cannot be read lets nothing through"
    assert "problem" in gateway.call("GET", "/v1/models/desk").json()["ownchat"]
    assert gateway.call("DELETE", "/v1/models/desk").json() == {"id": "desk", "object": "model", "deleted": True}
    assert [model.id for model in client.models.list()] == ["starter"]
