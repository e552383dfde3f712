"""What an OpenAI SDK of any release has to be able to do here; prints a line for each, ends with 1 where one fails.

Run by tests/serve/test_other_sdks.py with the interpreter of an environment that has another release.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai
from openai import OpenAI

MESSAGES: Any = [{"role": "user", "content": "Can I change my delivery address?"}]


def main() -> None:
    client = OpenAI(max_retries=0)
    asked: Any = {"model": "starter", "messages": MESSAGES, "max_tokens": 8}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    text = whole.choices[0].message.content
    assert text and whole.choices[0].logprobs and whole.choices[0].logprobs.content, "chat"
    streamed = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    assert "".join(one.choices[0].delta.content or "" for one in streamed if one.choices) == text, "stream"
    assert [model.id for model in client.models.list()] == ["starter"], "models"
    assert client.completions.create(model="starter", prompt="The parcel", max_tokens=3).choices[0].text, "completions"
    made = client.chat.completions.create(**asked, store=True, metadata={"topic": "x"})
    if hasattr(client.chat.completions, "update"):
        client.chat.completions.update(made.id, metadata={"rating": "up"})
        assert made.id in [one.id for one in client.chat.completions.list(metadata={"rating": "up"})], "stored"
        client.chat.completions.delete(made.id)
    if hasattr(client, "responses"):
        reply = client.responses.create(model="starter", input=MESSAGES[0]["content"], max_output_tokens=8)
        assert reply.output_text == text, "responses"
        events = client.responses.create(
            model="starter", input=MESSAGES[0]["content"], max_output_tokens=8, stream=True
        )
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == text
    schema = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"],
              "additionalProperties": False}  # fmt: skip
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    found = client.chat.completions.create(**(asked | {"max_tokens": 60}), response_format=form)
    assert json.loads(found.choices[0].message.content) == {"city": "Oslo"}, "schema"
    tool: Any = {"type": "function", "function": {"name": "track", "parameters": schema}}
    choice: Any = {"type": "function", "function": {"name": "track"}}
    called = client.chat.completions.create(**(asked | {"max_tokens": 60}), tools=[tool], tool_choice=choice)
    assert called.choices[0].message.tool_calls[0].function.name == "track", "tools"
    for change, error in (({"model": "none"}, openai.NotFoundError), ({"temperature": 9}, openai.BadRequestError)):
        try:
            client.chat.completions.create(**(asked | change))
        except error:
            continue
        raise AssertionError(f"{change} is not {error.__name__}")
    print(f"openai {openai.__version__}: all well")


if __name__ == "__main__":
    sys.exit(main())
