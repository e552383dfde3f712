"""The step: records of all kinds, JSON that stays JSON, and a ledger without private text."""

import json

import pyarrow as pa

from ownchat.clean.private.step import redact_private
from ownchat.data.records import SCHEMA, message, record


def batch_of(*rows):
    return pa.RecordBatch.from_pylist(list(rows), schema=SCHEMA)


ARGUMENTS = json.dumps(
    {"email": "anna@example.com", "count": 3, "phone": 2125550187, "nested": {"to": ["b@example.com"]}}
)
CALL = json.dumps([{"id": "call_1", "type": "function", "function": {"name": "send", "arguments": ARGUMENTS}}])
ROWS = batch_of(
    record("conversation", file="f", format="x", line=1, messages=[
        message("user", "my email is anna@example.com", name="Anna Berg"),
        message("assistant", "", tool_calls=CALL),
        message("assistant", "Sent to anna@example.com.", weight=1),
    ]),
    record("document", file="f", format="x", line=2, text="Nothing here."),
    record("document", file="f", format="x", line=3, text="Write to b@example.com."),
    record("preference", file="f", format="x", line=4, messages=[message("user", "hi")],
           chosen=[message("assistant", "c@example.com")], rejected=[message("assistant", "d@example.com")]),
)  # fmt: skip


def test_every_kind_of_record():
    batch, entries = redact_private(ROWS)
    rows = batch.to_pylist()
    first = rows[0]["messages"]
    assert first[0]["content"] == "my email is [EMAIL_1]" and first[0]["name"] == "[PERSON_1]"
    assert first[2]["content"] == "Sent to [EMAIL_1]." and first[2]["weight"] == 1
    call = json.loads(first[1]["tool_calls"])[0]
    assert call["id"] == "call_1" and call["function"]["name"] == "send"
    arguments = json.loads(call["function"]["arguments"])
    assert arguments["email"] == "[EMAIL_1]" and arguments["count"] == 3 and arguments["nested"]["to"] == ["[EMAIL_2]"]
    assert batch.slice(1, 1).equals(ROWS.slice(1, 1))
    assert rows[2]["text"] == "Write to [EMAIL_1]."
    assert (rows[3]["chosen"][0]["content"], rows[3]["rejected"][0]["content"]) == ("[EMAIL_1]", "[EMAIL_2]")
    assert [row["id"] for row in rows] == ROWS["id"].to_pylist()
    assert [(entry.id, entry.fate, entry.rule) for entry in entries] == [
        (ROWS["id"][index].as_py(), "changed", "private data") for index in (0, 2, 3)
    ]
    assert entries[1].count == 1 and entries[1].detail == "email 1"
    assert not any("@" in entry.detail or "Anna" in entry.detail for entry in entries)


def test_slices_and_nothing_to_do():
    alone, _ = redact_private(ROWS.slice(2, 1))
    assert alone.to_pylist() == redact_private(ROWS)[0].slice(2, 1).to_pylist()
    same, entries = redact_private(ROWS, types=[])
    assert same.equals(ROWS) and entries == []


def test_a_part_that_somebody_plays_is_no_name():
    turns = [message("user", "Hello there", name="USER"), message("assistant", "Hi", name="Agent 7")]
    row = record("conversation", file="a", format="jsonl", line=1, messages=turns)
    batch, entries = redact_private(batch_of(row))
    assert [turn["name"] for turn in batch.to_pylist()[0]["messages"]] == ["USER", "Agent 7"] and not entries
    row["messages"][1]["name"] = "Anna Berg"
    batch, entries = redact_private(batch_of(row))
    assert [turn["name"] for turn in batch.to_pylist()[0]["messages"]] == ["USER", "[PERSON_1]"] and len(entries) == 1
