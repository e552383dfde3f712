"""Stored answers: rated through the SDK, seen by their owner only, without private data, and training data at last."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import OpenAI
from sqlalchemy import text, update

from ownchat.serve import logs
from ownchat.serve.exporting import export
from ownchat.serve.redacting import Redacting

if TYPE_CHECKING:
    from conftest import Gateway

EMAIL = "anna.berg@example.com"
ASKED: Any = [{"role": "user", "content": f"Please write to {EMAIL} about my parcel."}]


@pytest.fixture
def gateway(serving: Any) -> Gateway:
    found: Gateway = serving()
    return found


@pytest.fixture
def client(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=gateway.url, api_key=gateway.key(owner="anna"), max_retries=0)


def stored(client: OpenAI, question: Any = ASKED, **more: Any) -> Any:
    return client.chat.completions.create(
        **({"model": "starter", "messages": question, "max_tokens": 8, "store": True} | more)
    )


def test_an_answer_is_stored_found_rated_and_forgotten(client: OpenAI) -> None:
    made = stored(client, metadata={"topic": "parcels"})
    found = client.chat.completions.retrieve(made.id)
    assert found.choices[0].message.content == made.choices[0].message.content
    assert found.metadata == {"topic": "parcels"}  # type: ignore[attr-defined]
    streamed = list(stored(client, stream=True, metadata={"topic": "other"}))
    assert client.chat.completions.retrieve(streamed[0].id).choices[0].finish_reason
    assert [one.id for one in client.chat.completions.list(metadata={"topic": "parcels"})] == [made.id]
    rated = client.chat.completions.update(made.id, metadata={"rating": "down"})
    assert rated.metadata == {"rating": "down"}  # type: ignore[attr-defined]
    assert [one.id for one in client.chat.completions.list(metadata={"rating": "down"})] == [made.id]
    assert not list(client.chat.completions.list(metadata={"topic": "parcels"})), "metadata are replaced"
    with pytest.raises(openai.BadRequestError, match="rating"):
        client.chat.completions.update(made.id, metadata={"rating": "lovely"})
    deleted = client.chat.completions.delete(made.id)
    assert deleted.deleted and deleted.id == made.id
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.delete(made.id)


def test_nothing_is_stored_that_nobody_asked_to(gateway: Gateway, client: OpenAI) -> None:
    client.chat.completions.create(model="starter", messages=ASKED, max_tokens=4, metadata={"a": "b"})
    client.chat.completions.create(model="starter", messages=ASKED, max_tokens=4, store=False)
    assert not list(gateway.services.records.all(None))


def test_private_data_in_keys_of_metadata_are_placeholders(gateway: Gateway, client: OpenAI) -> None:
    key = f"the order of one whom we all know as {EMAIL}"
    made = stored(client, metadata={key: "late", "topic": "parcels"})
    response = client.responses.create(
        model="starter", input="x", max_output_tokens=2, store=True, metadata={EMAIL: "4111 1111 1111 1111"}
    )
    assert client.responses.retrieve(response.id).metadata == {"[EMAIL_1]": "[CARD_1]"}
    client.chat.completions.update(made.id, metadata={key: "lost", "rating": "up"})
    found: Any = client.chat.completions.retrieve(made.id)
    assert len(key) <= 64 and set(found.metadata) == {key.replace(EMAIL, "[EMAIL_1]")[:64], "rating"}
    database = gateway.services.database.engine
    with database.connect() as connection:
        rows = [*connection.execute(text("select metadata, answer from ownchat_records")),
                *connection.execute(text("select key, value from ownchat_record_labels"))]  # fmt: skip
    assert rows and "berg" not in str(rows)
    with pytest.raises(openai.BadRequestError, match="cannot be searched for"):
        client.chat.completions.list(metadata={EMAIL: "late"})


def test_pages_are_turned_by_the_sdk(client: OpenAI) -> None:
    ids = [stored(client, max_tokens=1).id for _ in range(5)]
    assert [one.id for one in client.chat.completions.list(limit=2)] == ids
    assert [one.id for one in client.chat.completions.list(limit=2, order="desc")] == ids[::-1]
    page = client.chat.completions.list(limit=2)
    assert page.has_more and len(page.data) == 2
    with pytest.raises(openai.NotFoundError, match="after"):
        client.chat.completions.list(after="chatcmpl-none")
    listed = list(client.chat.completions.messages.list(ids[0]))
    assert [one.role for one in listed] == ["user"] and listed[0].id
    with pytest.raises(openai.NotFoundError, match="after"):
        client.chat.completions.messages.list(ids[0], after="nothing")
    response = client.responses.create(model="starter", input="x", max_output_tokens=2, store=True)
    with pytest.raises(openai.NotFoundError, match="after"):
        client.responses.input_items.list(response.id, after="nothing")
    (item,) = client.responses.input_items.list(response.id)
    assert not client.responses.input_items.list(response.id, after=str(item.id)).data


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_a_fault_in_the_middle_of_a_stream_is_logged_and_counted(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(EMAIL)

    monkeypatch.setattr(gateway.services.records, "add", broken)
    stream = io.StringIO()
    logs.set_up(stream)
    try:
        asked = {"model": "starter", "messages": ASKED, "input": "x", "stream": True, "store": True}
        answer = gateway.call("POST", f"/v1/{path}", asked | {"max_tokens": 4, "max_output_tokens": 4})
        assert answer.status == 200 and b"the server failed" in answer.body
        figures = gateway.call("GET", "/metrics").body.decode()
    finally:
        logs.set_up(io.StringIO())
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (fault,) = [line for line in lines if line["event"] == "fault"]
    assert fault["error"] == "RuntimeError" and fault["request_id"] == answer.headers["x-request-id"]
    assert any("broken" in place for place in fault["where"]) and EMAIL not in stream.getvalue()
    (request,) = [
        line for line in lines if line.get("request_id") == fault["request_id"] and line["event"] == "request"
    ]
    assert request["code"] == "internal_error"
    assert 'ownchat_errors_total{code="internal_error",status="500"} 1.0' in figures


def test_private_data_are_stored_nowhere(gateway: Gateway, client: OpenAI) -> None:
    question: Any = [
        {"role": "user", "content": [{"type": "text", "text": ASKED[0]["content"]}]},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "mail", "arguments": json.dumps({"to": EMAIL})}}]},
        {"role": "tool", "tool_call_id": "c", "content": f"sent to {EMAIL}"},
    ]  # fmt: skip
    made = stored(client, question, metadata={"customer": EMAIL, "topic": "Paris"}, stop=["x"])
    client.chat.completions.update(made.id, metadata={"edited": f"Written to {EMAIL}.", "customer": EMAIL})
    record = gateway.services.records.get("anna", made.id, kind="chat")
    assert record is not None and EMAIL not in repr(record)
    # who the first one was is forgotten by the time that the answer is mended: it is another one
    assert record.edited == "Written to [EMAIL_2]."
    assert record.messages[0]["content"].startswith("Please write to [EMAIL_1]")
    assert record.messages[1]["tool_calls"][0]["function"]["arguments"] == {"to": "[EMAIL_1]"}
    said: Any = gateway.call("GET", f"/v1/chat/completions/{made.id}/messages", token=client.api_key).json()["data"]
    assert said[1]["tool_calls"][0]["function"]["arguments"] == '{"to": "[EMAIL_1]"}', "JSON text, as it is everywhere"
    assert record.redaction == {"state": "redacted", "types": {"email": 3}}
    for address in (EMAIL, "somebody.else@example.com"):  # both would be the same placeholder
        with pytest.raises(openai.BadRequestError, match="placeholders"):
            client.chat.completions.list(metadata={"customer": address})
    assert [one.id for one in client.chat.completions.list(metadata={"topic": "Paris"})] == []
    said = client.responses.create(
        model="starter", input=question[0]["content"][0]["text"], instructions=f"Ask {EMAIL}.", max_output_tokens=4,
        store=True, metadata={"customer": EMAIL, "topic": "Paris"},
    )  # fmt: skip
    response = gateway.services.records.get("anna", said.id, kind="response")
    assert response is not None and EMAIL not in repr(response)
    assert client.responses.retrieve(said.id).metadata == {"customer": "[EMAIL_1]", "topic": "Paris"}
    with gateway.services.database.read() as connection:
        connection.execute(text("PRAGMA wal_checkpoint"))
    for file in (gateway.services.settings.home / "server").iterdir():
        assert EMAIL.encode() not in file.read_bytes(), file.name


def test_what_is_of_another_owner_is_not_there(gateway: Gateway, client: OpenAI) -> None:
    made = stored(client)
    said = client.responses.create(model="starter", input="x", max_output_tokens=2, store=True)
    other = OpenAI(base_url=gateway.url, api_key=gateway.key(owner="ben"), max_retries=0)
    for attempt in (
        lambda: other.chat.completions.retrieve(made.id),
        lambda: other.chat.completions.update(made.id, metadata={"rating": "up"}),
        lambda: other.chat.completions.delete(made.id),
        lambda: other.chat.completions.messages.list(made.id),
        lambda: other.responses.retrieve(said.id),
        lambda: other.responses.delete(said.id),
        lambda: other.responses.input_items.list(said.id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    with pytest.raises(openai.BadRequestError):
        other.responses.create(model="starter", input="x", previous_response_id=said.id, max_output_tokens=2)
    assert not list(other.chat.completions.list())
    assert client.chat.completions.retrieve(made.id).id == made.id
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(said.id)  # a response is no chat completion
    assert list(OpenAI(base_url=gateway.url, api_key=gateway.key(owner="anna")).chat.completions.list()), (
        "her other key"
    )


def test_old_answers_are_forgotten(gateway: Gateway, client: OpenAI) -> None:
    from ownchat.serve.records import _labels, _records

    old, new = (stored(client, metadata={"age": age}) for age in ("old", "new"))
    with gateway.services.database.begin() as connection:
        then = int(time.time()) - 31 * 86_400
        connection.execute(update(_records).where(_records.c.id == old.id).values(created=then))
    assert gateway.services.records.expire() == 1
    assert [one.id for one in client.chat.completions.list()] == [new.id]
    with gateway.services.database.read() as connection:
        assert [row.value for row in connection.execute(_labels.select())] == ["new"]


def test_rated_answers_become_training_data_that_ownchat_reads(
    gateway: Gateway, client: OpenAI, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from ownchat.cli import app
    from ownchat.config import DataConfig
    from ownchat.data.files import InputFile
    from ownchat.data.json_rows import read_json_lines

    question: Any = [{"role": "user", "content": "Where is my parcel?"}]
    good, bad, mended, other = (
        stored(client, question, seed=seed, temperature=2, max_tokens=6) for seed in (1, 2, 3, 4)
    )
    client.chat.completions.update(good.id, metadata={"rating": "up"})
    client.chat.completions.update(bad.id, metadata={"rating": "1"})
    client.chat.completions.update(mended.id, metadata={"rating": "down", "edited": "It is on its way."})
    rows = {form: list(export(gateway.services.records.all("anna"), form)) for form in ("sft", "dpo")}  # type: ignore[arg-type]
    said = {one.id: one.choices[0].message.content for one in (good, bad, mended, other)}
    assert [row["messages"][-1]["content"] for row in rows["sft"]] == [said[good.id], "It is on its way."]
    pairs = [(row["preferred_output"][0]["content"], row["non_preferred_output"][0]["content"]) for row in rows["dpo"]]
    assert pairs == [(said[good.id], said[bad.id]), ("It is on its way.", said[mended.id])]
    assert not list(export(gateway.services.records.all("ben"), "sft"))
    for form, kind in (("sft", "conversation"), ("dpo", "preference")):
        file = tmp_path / f"{form}.jsonl"
        done = CliRunner().invoke(app, ["records", "export", str(file), "--form", form, "--owner", "anna"])
        assert done.exit_code == 0, done.output
        assert [json.loads(line) for line in file.read_text().splitlines()] == rows[form]
        records = list(read_json_lines(InputFile(file, file.name), DataConfig()).rows)
        assert [record["kind"] for record in records] == [kind] * 2, records


def test_earlier_answers_are_context_and_not_examples(gateway: Gateway, client: OpenAI) -> None:
    talk: Any = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hm."},
        {"role": "user", "content": "So?"},
    ]
    made = stored(client, talk)
    client.chat.completions.update(made.id, metadata={"rating": "good"})
    (row,) = export(gateway.services.records.all("anna"), "sft")
    assert [one.get("weight") for one in row["messages"]] == [None, 0, None, None]


def test_a_record_of_a_call_keeps_it(gateway: Gateway, client: OpenAI) -> None:
    from ownchat.serve.exporting import answered

    made = stored(client)
    record = gateway.services.records.get("anna", made.id, kind="chat")
    assert record is not None
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    changed = replace(record, answer={**record.answer, "choices": [{"message": message}]})
    assert answered(changed) == {"role": "assistant", "content": "", "tool_calls": [call]}


def test_labels_that_are_masked_and_cut_alike_stay_two() -> None:
    found = Redacting().labels({f"{'so ' * 17}to a@b.de {one}": one for one in ("1", "2")})
    assert list(found.values()) == ["1", "2"] and all(len(key) <= 64 and "@" not in key for key in found)
    assert any(key.endswith("~2") for key in found)
