"""Preferences of all published forms: prompt, better and worse answer, and how much better."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

USER = {"role": "user", "content": "Hi"}
GOOD, BAD = {"role": "assistant", "content": "Hello"}, {"role": "assistant", "content": "No"}


def texts(record):
    return [[turn["content"] for turn in record[part] or []] for part in ("messages", "chosen", "rejected")]


@pytest.mark.parametrize(
    "row, rating",
    [
        ({"prompt": "Hi", "chosen": "Hello", "rejected": "No"}, None),
        ({"prompt": "Hi", "chosen": [GOOD], "rejected": [BAD], "margin": 2}, 2),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, None),
        (
            {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 4.5, "score_rejected": 3},
            1.5,
        ),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD], "chosen-rating": 5, "rejected-rating": 1}, 4),
        (
            {
                "conversations": [{"from": "human", "value": "Hi"}],
                "chosen": {"from": "gpt", "value": "Hello"},
                "rejected": {"from": "gpt", "value": "No"},
            },
            None,
        ),
        ({"instruction": "Hi", "input": "", "output": "x", "chosen": "Hello", "rejected": "No"}, None),
        ({"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}, None),
        ({"messages": [USER], "preferred_completion": "Hello", "non_preferred_completion": "No"}, None),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}, None),
        ({"history": "Hi", "human_ref_A": "No", "human_ref_B": "Hello", "labels": 0, "score_A": 2, "score_B": 9}, 7),
        ({"prompt": "Hi", "response_0": "Hello", "response_1": "No", "better_response_id": 0}, None),
        ({"question": {"full_text": "Hi"}, "answer_0": "No", "answer_1": "Hello", "score_0": -1, "score_1": 1}, 2),
        ({"conversation_a": [USER, BAD], "conversation_b": [USER, GOOD], "winner": "model_b"}, None),
        (
            {
                "instruction": "Hi",
                "completions": [
                    {"response": "No", "fine-grained_score": 1.5},
                    {"response": "So", "fine-grained_score": 2},
                    {"response": "Hello", "fine-grained_score": 4},
                ],
            },
            2.5,
        ),
        (
            {
                "instruction": "Hi",
                "completions": [
                    {
                        "response": "No",
                        "overall_score": 10,
                        "annotations": {"honesty": {"Rating": "1"}, "truth": {"Rating": "2"}},
                    },
                    {
                        "response": "Hello",
                        "overall_score": 8,
                        "annotations": {"honesty": {"Rating": "5"}, "truth": {"Rating": "N/A"}},
                    },
                ],
            },
            3.5,
        ),
        (
            {
                "prompt": "\n\nHuman: Hi\n\nAssistant: ",
                "answers": [{"answer": "No", "rank": 2}, {"answer": "Hello", "rank": 1}],
            },
            1,
        ),
        ({"prompt": "Hi", "responses": ["No", "Hello"], "scores": [0.1, 0.6]}, 0.5),
        ({"question": "Hi", "answers": [{"text": "Hello", "pm_score": 3}, {"text": "No", "pm_score": 0}]}, 3),
    ],
)
def test_forms(understand, row, rating):
    (record,) = understand(json.dumps(row)).records
    assert record["kind"] == "preference"
    assert texts(record) == [["Hi"], ["Hello"], ["No"]]
    assert record["rating"] == rating
    assert record["desirable"] is None


def test_dialogue_is_parted_where_the_answers_differ(understand):
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"
    (record,) = understand(json.dumps({"chosen": start + " Because.", "rejected": start + " No."})).records
    assert texts(record) == [["Hi", "Hello", "Why?"], ["Because."], ["No."]]


def test_a_longer_prompt_is_not_lost(understand):
    prompt = [{"role": "system", "content": "S"}, USER, GOOD, {"role": "user", "content": "Why?"}]
    side = [{"role": "user", "content": "Why?"}]
    row = {"prompt": prompt, "chosen": [*side, GOOD], "rejected": [*side, BAD]}
    (record,) = understand(json.dumps(row)).records
    assert texts(record) == [["S", "Hi", "Hello", "Why?"], ["Hello"], ["No"]]


def test_scores_of_all_answers_are_kept(understand):
    row = {"prompt": "Hi", "responses": ["No", "So", "Hello"], "scores": [1, 2.5, 4]}
    (record,) = understand(json.dumps(row)).records
    assert record["tags"] == ["scores 4, 2.5, 1"]


@pytest.mark.parametrize(
    "row, desirable",
    [
        ({"messages": [USER, GOOD], "label": True}, True),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "kto_tag": False},
            False,
        ),
        ({"prompt": "Hi", "completion": "Hello", "label": "false"}, False),
        ({"prompt": [USER], "completion": [GOOD], "label": True}, True),
    ],
)
def test_judged_answers(understand, row, desirable):
    (record,) = understand(json.dumps(row)).records
    assert (record["kind"], record["desirable"]) == ("preference", desirable)
    assert texts(record) == [["Hi", "Hello"], [], []]


@pytest.mark.parametrize(
    "row, rule",
    [
        ({"prompt": "Hi", "chosen": "Hello", "rejected": " Hello"}, "chosen and rejected are equal"),
        ({"prompt": "Hi", "chosen": "", "rejected": "x"}, "no answer"),
        ({"prompt": "", "chosen": "Hello", "rejected": "x"}, "no question"),
        ({"prompt": "Hi", "responses": ["a", "b"], "scores": [1, 1]}, "no answer is better"),
        ({"conversation_a": [USER, BAD], "conversation_b": [USER, GOOD], "winner": "tie"}, "no answer is better"),
        ({"messages": [USER], "label": True}, "no answer"),
        ({"prompt": "Hi", "chosen": [{"role": "x"}], "rejected": "No"}, "not of the file's form"),
    ],
)
def test_rows_without_a_preference(understand, row, rule):
    good = {"prompt": "Hi", "chosen": "Hello", "rejected": "No"}
    read = understand("\n".join(map(json.dumps, [good, row])))
    assert (len(read.records), read.rules) == (1, {rule: 1})


def test_multiple_choice(understand):
    rows = [
        {"context": "C", "question": "Q?", "ans0": "x", "ans1": "y", "ans2": "z", "label": 2},
        {"question": "Q?", "choices": ["x", "y", "z"], "answer": 2},
        {"question": "Q?", "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}, "answerKey": "C"},
        {"question": "Q?", "choices": ["x", "y", "z"], "answer": 7},
    ]
    read = understand("\n".join(map(json.dumps, rows)))
    assert [record["messages"][-1]["content"] for record in read.records] == ["C. z"] * 3
    assert read.records[0]["messages"][0]["content"] == "C\n\nQ?\n\nA. x\nB. y\nC. z"
    assert read.rules == {"no answer": 1}


_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "text"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_KEYS = "prompt chosen rejected messages conversations label completions scores responses history instances answers"


@given(rows=st.lists(st.dictionaries(st.sampled_from(_KEYS.split()), _VALUE, max_size=4), max_size=5))
@settings(max_examples=50, deadline=None)
def test_rows_of_any_shape_have_one_fate(understand, rows):
    good = {"prompt": "Hi", "chosen": "Hello", "rejected": "No"}
    read = understand("\n".join(map(json.dumps, [good, *rows])))
    lines = {record["source"]["line"] for record in read.records}
    assert 1 in lines
    instances = sum(max(len(row["instances"]) - 1, 0) for row in rows if isinstance(row.get("instances"), list))
    assert len(rows) + 1 <= read.rows <= len(rows) + 1 + instances
