"""Parquet and Arrow: the same records as JSON lines give, whatever the layout; damaged files are entries."""

import json

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data.files import UnreadableFile
from ownchat.errors import DataError


def packed(table: pa.Table, kind: str) -> bytes:
    sink = pa.BufferOutputStream()
    if kind == "parquet":
        pq.write_table(table, sink, row_group_size=3)
    elif kind == "feather":
        feather.write_feather(table, sink)
    else:
        new = pa.ipc.new_file if kind == "arrow file" else pa.ipc.new_stream
        with new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    return sink.getvalue().to_pybytes()


KINDS = ["parquet", "feather", "arrow file", "arrow stream"]
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
ROWS = {
    "messages": [CHAT] * 8,
    "sharegpt": [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}] * 4,
    "dialogues": [
        {
            "dialogue_id": "d1",
            "turns": [{"speaker": "USER", "utterance": "Hi"}, {"speaker": "SYSTEM", "utterance": "Hello"}],
        }
    ]
    * 4,
    "table": [{"question": "Hi", "answer": "Hello", "id": 7}, {"question": "Hi", "answer": None, "id": 8}],
    "preferences": [{"prompt": "Hi", "chosen": "Hello", "rejected": "No", "score_chosen": 2.0, "score_rejected": 1.0}],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ROWS)
def test_same_records_as_json_lines(understand, kind, form):
    table = pa.Table.from_pylist(ROWS[form])
    read = understand(packed(table, kind), "a.bin")
    lines = understand("\n".join(map(json.dumps, ROWS[form])))
    assert read.format == "columnar"
    texts = [
        [[turn["content"] for turn in record[part] or []] for part in ("messages", "chosen", "rejected")]
        for record in read.records
    ]
    assert texts == [
        [[turn["content"] for turn in record[part] or []] for part in ("messages", "chosen", "rejected")]
        for record in lines.records
    ]
    assert [record["rating"] for record in read.records] == [record["rating"] for record in lines.records]
    assert read.rules == lines.rules
    assert read.records[0]["source"]["line"] == 1


def test_labels_get_their_names(understand):
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["bad", "good"], "_type": "ClassLabel"},
    }
    table = pa.table(
        {"text": [f"This is the film number {n} of them" for n in range(20)], "label": [n % 2 for n in range(20)]}
    )
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    read = understand(packed(table, "parquet"), "train.parquet")
    assert [record["messages"][-1]["content"] for record in read.records[:2]] == ["bad", "good"]


def test_times_bytes_and_decimals_are_texts(understand):
    import datetime
    import decimal

    day = datetime.datetime(2024, 1, 2)
    row = {"question": "Hi", "answer": b"Hello", "at": day, "n": decimal.Decimal("1.5")}
    (record,) = understand(packed(pa.Table.from_pylist([row]), "parquet"), "a.parquet").records
    assert record["messages"][1]["content"] == "Hello"


@given(data=st.data(), kind=st.sampled_from(KINDS))
@settings(max_examples=40, deadline=None)
def test_damaged_files_are_no_crash(understand, data, kind):
    content = bytearray(packed(pa.Table.from_pylist(ROWS["messages"]), kind))
    for _ in range(data.draw(st.integers(0, 2))):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    try:
        understand(bytes(content), "a.parquet")
    except (UnreadableFile, DataError):
        return
