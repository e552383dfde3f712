"""ShareGPT, Alpaca, prompt and completion, Self-Instruct: what each form makes, and that nothing gets lost."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data.files import UnreadableFile
from ownchat.errors import DataError


def turns(record, part="messages"):
    return [(turn["role"], turn["content"]) for turn in record[part]]


PAIR = [("user", "Hi"), ("assistant", "Hello")]
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}


@pytest.mark.parametrize(
    "row, expected",
    [
        ({"conversations": [HUMAN, GPT]}, PAIR),
        ({"id": "x", "items": [HUMAN, GPT]}, PAIR),
        ({"conversations": [HUMAN, GPT], "system": "Be kind."}, [("system", "Be kind."), *PAIR]),
        ({"conversations": [{"from": "User", "value": "Hi"}, {"from": "chatgpt", "value": "Hello"}]}, PAIR),
        ({"conversation": [{"human": "Hi", "assistant": "Hello"}]}, PAIR),
        ({"conversation": [{"system": "S", "input": "Hi", "output": "Hello"}]}, [("system", "S"), *PAIR]),
        ({"conversations": ["Hi", "Hello"]}, PAIR),
        ({"messages": [HUMAN, GPT]}, PAIR),
        ({"messages": [{"role": "human", "content": "Hi"}, {"role": "gpt", "content": "Hello"}]}, PAIR),
        ({"instruction": "Hi", "input": "", "output": "Hello", "history": []}, PAIR),
        (
            {"instruction": "Add", "input": "2", "output": "4", "system": "S", "history": [["a?", "b"]]},
            [("system", "S"), ("user", "a?"), ("assistant", "b"), ("user", "Add\n\n2"), ("assistant", "4")],
        ),
        (
            {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello"}]},
            PAIR,
        ),
        ({"prompt": "Hi", "completion": [{"role": "assistant", "content": "Hello"}]}, PAIR),
        ({"prompt": "Hi", "completion": "Hello"}, PAIR),
        ({"id": "t", "instruction": "Hi", "instances": [{"input": "", "output": "Hello"}]}, PAIR),
    ],
)
def test_forms(understand, row, expected):
    read = understand(json.dumps(row) + "\n")
    assert [turns(record) for record in read.records] == [expected]
    assert not read.entries


def test_tool_turns_become_openai_calls(understand):
    row = {
        "conversations": [
            HUMAN,
            {"from": "function_call", "value": '{"name": "find", "arguments": {"id": 7}}'},
            {"from": "observation", "value": '{"state": "sent"}'},
            GPT,
        ],
        "tools": '[{"name": "find", "parameters": {}}]',
    }
    (record,) = understand(json.dumps(row)).records
    assert [turn["role"] for turn in record["messages"]] == ["user", "assistant", "tool", "assistant"]
    call = {"type": "function", "function": {"name": "find", "arguments": '{"id": 7}'}}
    assert json.loads(record["messages"][1]["tool_calls"]) == [call]
    assert json.loads(record["tools"]) == [{"type": "function", "function": {"name": "find", "parameters": {}}}]


def test_a_call_that_is_none_keeps_its_words(understand):
    row = {"conversations": [HUMAN, {"from": "function_call", "value": "find(7)"}]}
    (record,) = understand(json.dumps(row)).records
    assert turns(record)[1] == ("assistant", "find(7)")


def test_instances_are_rows_of_their_own(understand):
    instances = [{"input": "1", "output": "one"}, {"input": "2", "output": "two"}, {"input": "3", "output": ""}]
    read = understand(json.dumps({"instruction": "Spell", "instances": instances}))
    assert [turns(record)[1][1] for record in read.records] == ["one", "two"]
    assert len({record["id"] for record in read.records}) == 2
    assert read.rules == {"empty": 1}


@pytest.mark.parametrize(
    "row, rule, detail",
    [
        ({"conversations": []}, "empty", ""),
        ({"conversations": [HUMAN]}, "no assistant turn", ""),
        ({"conversations": [HUMAN, {"from": "robot", "value": "x"}]}, "not of the file's form", "unknown speaker"),
        ({"conversations": [HUMAN, {"from": "gpt"}]}, "not of the file's form", "conversations[1] has no text"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "not of the file's form", "history[0]"),
        ({"instruction": "a", "output": " ", "history": []}, "no answer", ""),
        ({"messages": [{"role": "asistant", "content": "x"}]}, "not of the file's form", "unknown role"),
    ],
)
def test_odd_rows_are_entries_and_reading_goes_on(understand, row, rule, detail):
    good = {"conversations": [HUMAN, GPT]}
    read = understand("\n".join(map(json.dumps, [good, row, good])))
    assert len(read.records) == 2
    (entry,) = read.entries
    assert entry.rule == rule
    assert "line 2" in entry.detail
    assert detail in entry.detail


def test_forms_may_be_mixed_in_one_file(understand):
    rows = [
        {"conversations": [HUMAN, GPT]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    ]
    rows += [{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}, {"question": "Hi", "answer": "Hello"}]
    read = understand("\n".join(map(json.dumps, rows)))
    assert [record["kind"] for record in read.records] == ["conversation"] * 2 + ["preference", "conversation"]
    assert not read.entries


def test_map_wins_over_forms(understand):
    row = {"instruction": "Hi", "input": "", "output": "Hello", "history": [["a", "b"]]}
    (record,) = understand(json.dumps(row), map={"question": "instruction", "answer": "output"}).records
    assert turns(record) == PAIR


# A conversation with texts of any kind, to be found again in the record.
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_ROWS = st.lists(
    st.lists(st.tuples(st.sampled_from(["human", "gpt", "system", "observation"]), _TEXT), max_size=5),
    min_size=1,
    max_size=6,
)


@given(rows=_ROWS)
@settings(max_examples=40, deadline=None)
def test_every_row_has_one_fate_and_no_text_is_lost(understand, rows):
    lines = [json.dumps({"conversations": [{"from": who, "value": said} for who, said in row]}) for row in rows]
    read = understand("\n".join(lines))
    assert read.rows == len(rows)
    for record in read.records:
        row = rows[record["source"]["line"] - 1]
        assert [turn["content"] for turn in record["messages"]] == [said for _, said in row]
    kept = {record["source"]["line"] for record in read.records}
    lost = [row for number, row in enumerate(rows, 1) if number not in kept]
    assert all(not any(who == "gpt" and said.strip() for who, said in row) for row in lost)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_files_are_no_crash(understand, data):
    rows = [{"conversations": [HUMAN, GPT], "n": n} for n in range(5)]
    content = bytearray("\n".join(map(json.dumps, rows)).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    try:
        read = understand(bytes(content), data.draw(st.sampled_from(["a.jsonl", "a.json", "a.txt"])))
    except (UnreadableFile, DataError):
        return
    assert all(record["id"] for record in read.records)


@pytest.mark.parametrize(
    "name, kind, count",
    [
        ("lima.json", "conversation", 1029),
        ("llamafactory_alpaca_en_demo.json", "conversation", 999),
        ("llamafactory_glaive_toolcall_en_demo.json", "conversation", 300),
        ("llamafactory_dpo_en_demo.json", "preference", 300),
        ("llamafactory_kto_en_demo.json", "preference", 300),
        ("rasbt_instruction_1100.json", "conversation", 1100),
        ("rasbt_preference_1100.json", "preference", 1094),  # six pairs are equal
        ("self_instruct_seed_tasks.jsonl", "conversation", 175),
        ("gsm_8k_train.json.gz", "conversation", 7473),
        ("gpteacher_roleplay.json.gz", "conversation", 3146),
    ],
)
def test_real_files(understand, datasets, name, kind, count):
    read = understand(datasets / "instruct_small" / name, name)
    assert {record["kind"] for record in read.records} == {kind}
    assert len(read.records) == count
    assert set(read.rules) <= {"chosen and rejected are equal"}
