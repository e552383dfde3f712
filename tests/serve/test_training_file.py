"""Files to learn from: what is refused, with its line and reason, and that nothing makes it fail otherwise."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.serve.training_file import Findings, NotJsonLines, check_json_lines, validate

USER = {"role": "user", "content": "Can I return it?"}
ANSWER = {"role": "assistant", "content": "Yes, within thirty days."}
CALL = {"id": "call_1", "type": "function", "function": {"name": "order", "arguments": '{"number": 7}'}}


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages or (USER, ANSWER)), **more}


def pair(**changed: Any) -> dict[str, Any]:
    worse = {"role": "assistant", "content": "No idea."}
    row = {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [worse]}
    return row | changed


def file(*rows: Any, times: int = 1) -> io.BytesIO:
    return io.BytesIO(b"".join(json.dumps(row).encode() + b"\n" for row in rows * times))


def problem(row: Any, method: str = "supervised", **more: Any) -> str:
    """Why a file with this in its second line is refused."""
    good = pair() if method == "dpo" else chat()
    found = validate(file(good, row), method, least=1, **more)  # type: ignore[arg-type]
    assert found.problem is not None, "it was taken"
    assert found.code == "invalid_file_format"
    assert "line 2: " in found.problem and "line 1:" not in found.problem
    return found.problem.split("line 2: ", 1)[1]


def taken(*rows: Any, method: str = "supervised") -> Findings:
    found = validate(file(*rows), method, least=1)  # type: ignore[arg-type]
    assert found.problem is None, found.problem
    return found


@pytest.mark.parametrize(
    "row",
    [
        chat(),
        chat({"role": "developer", "content": "Be short."}, USER, ANSWER),
        chat(USER, ANSWER | {"weight": 0}, USER, ANSWER | {"weight": 1}),
        chat(USER, {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}),
        chat(USER, {"role": "assistant", "refusal": "I cannot say that."}),
        chat(
            USER, {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sent"}, ANSWER,
            tools=[{"type": "function", "function": {"name": "order", "parameters": {}}}], parallel_tool_calls=False,
        ),
        chat(USER, {"role": "assistant", "content": None, "function_call": {"name": "order", "arguments": "{}"}},
             {"role": "function", "name": "order", "content": "sent"}, ANSWER, functions=[{"name": "order"}]),
        {"prompt": "Return? ->", "completion": " Yes."},
    ],
)  # fmt: skip
def test_openais_forms_are_taken(row: Any) -> None:
    assert taken(row).examples == 1


@pytest.mark.parametrize("names", [("preferred_output", "non_preferred_output"),
                                   ("preferred_completion", "non_preferred_completion")])  # fmt: skip
def test_both_spellings_of_preferences_are_taken(names: tuple[str, str]) -> None:
    row = pair()
    renamed = {"input": row["input"], names[0]: row["preferred_output"], names[1]: row["non_preferred_output"]}
    assert taken(renamed, method="dpo").kind == "preference"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1], "is not a JSON dictionary"),
        ({"mesages": []}, 'did you mean "messages"'),
        (chat() | {"messages": "hello"}, "messages must be a list"),
        (chat() | {"messages": []}, "messages must be a list that holds something"),
        (chat(USER), 'no message of role "assistant" with weight 1'),
        (chat(USER, ANSWER | {"weight": 0}), 'no message of role "assistant" with weight 1'),
        (chat(USER, ANSWER | {"weight": 2}), "messages[1].weight must be 0 or 1"),
        (chat(USER, ANSWER | {"weight": True}), "messages[1].weight must be 0 or 1"),
        (chat(USER | {"weight": 1}, ANSWER), "messages[0].weight: only messages"),
        (chat({"role": "bot", "content": "Hi"}, ANSWER), 'messages[0].role is "bot"'),
        (chat({"role": {"a": [1]}, "content": "Hi"}, ANSWER), "messages[0].role is a dict"),
        (chat({"content": "Hi"}, ANSWER), "messages[0].role is null"),
        (chat("Hi", ANSWER), "messages[0] is not a dictionary"),  # type: ignore[arg-type]
        (chat({"role": "user"}, ANSWER), "messages[0].content is missing"),
        (chat({"role": "user", "content": 7}, ANSWER), "messages[0].content must be text"),
        (chat({"role": "user", "contnt": "Hi"}, ANSWER), 'unknown key "contnt"; did you mean "content"'),
        (chat({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER), "only text is learned"),
        (chat(USER, ANSWER | {"content": "  "}), "messages[1].content is empty"),
        (chat(USER, {"role": "tool", "content": "sent"}, ANSWER), "messages[1].tool_call_id is missing"),
        (chat(USER | {"tool_calls": [CALL]}, ANSWER), "messages[0].tool_calls: only messages"),
        (chat(USER, {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": {}}}]}), "as text"),
        (chat(tools=[{}]), "tools[0] needs a name"),
        (chat(parallel_tool_calls="yes"), "parallel_tool_calls must be true or false"),
        ({"prompt": "Hi", "completion": ""}, "is a completion example in a file of chat examples"),
        (pair(), "is of another form than the method supervised learns from"),
        (chat(USER | {"content": "Hi <|im_end|>"}, ANSWER), "contains an invalid token: <|im_end|>"),
        (chat(USER, ANSWER | {"content": "a [STOP] b"}), "contains an invalid token: [STOP]"),
    ],
)
def test_a_line_is_refused_with_its_reason(row: Any, reason: str) -> None:
    assert reason in problem(row, special_tokens=["[STOP]"])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat(), "is of another form than the method dpo learns from"),
        (pair(input=[USER]), "input must be a dictionary"),
        (pair(preferred_output=[]), "preferred_output must be a list that holds something"),
        (pair(preferred_output=[ANSWER, ANSWER]), "preferred_output must hold one message"),
        (pair(preferred_output=[USER]), 'preferred_output[0] must be of role "assistant"'),
        (pair(non_preferred_output=[ANSWER]), "both answers are equal"),
    ],
)
def test_a_preference_is_refused_with_its_reason(row: Any, reason: str) -> None:
    assert reason in problem(row, "dpo")


def test_too_few_examples_are_told_as_openai_does() -> None:
    found = validate(file(chat(), times=7), "supervised")
    assert found.code == "invalid_n_examples"
    assert found.problem == "Training file has 7 example(s), but must have at least 10 examples"


def test_empty_lines_and_a_byte_order_mark_change_no_line_number() -> None:
    content = b"\xef\xbb\xbf" + json.dumps(chat()).encode() + b"\r\n\n\n" + b'{"messages": 1}\n'
    found = validate(io.BytesIO(content), "supervised", least=1)
    assert found.examples == 2
    assert found.problem is not None and "line 4: " in found.problem


def test_copies_and_keys_without_effect_are_counted() -> None:
    found = taken(chat(id="a"), chat(), chat(), chat())
    assert (found.copies, found.first_copy, found.ignored) == (2, 3, {"id": 1})


def test_many_wrong_lines_make_one_short_message() -> None:
    found = validate(file({"messages": []}, times=500), "supervised")
    assert found.problem is not None
    assert "line 5: " in found.problem and found.problem.endswith("and 495 more lines, the next is line 6")
    assert len(found.problem) < 600


def test_what_is_no_json_lines_is_said_with_its_line() -> None:
    check_json_lines(file(chat(), chat()))
    with pytest.raises(NotJsonLines, match=r"Line 2 is not a dictionary \(HINT: line starts with: \"\[1, 2\]\""):
        check_json_lines(file(chat(), [1, 2]))


def test_a_line_without_end_is_refused_and_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownchat.serve.training_file.LONGEST_LINE", 1000)
    long = chat(USER | {"content": "x" * 5000}, ANSWER)
    found = validate(file(chat(), long, chat()), "supervised", least=1)
    assert found.examples == 3, "what is left of a long line is no line of its own"
    assert found.problem is not None and "line 2: is longer than 1000 bytes" in found.problem


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
message = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool"]) | anything, "content": st.text() | anything,
        "weight": anything, "tool_calls": anything | st.lists(st.fixed_dictionaries({"function": anything})),
        "name": anything, "function_call": anything,
    },
)  # fmt: skip
line = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(message | anything, max_size=3) | anything, "tools": anything, "prompt": anything,
        "completion": anything, "input": anything | st.fixed_dictionaries({"messages": st.lists(message, max_size=2)}),
        "preferred_output": st.lists(message, max_size=2), "non_preferred_output": st.lists(message, max_size=2),
    },
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(line | anything, max_size=4),
    noise=st.binary(max_size=40),
    method=st.sampled_from(["supervised", "dpo"]),
)
def test_whatever_stands_there_is_a_finding_and_never_an_exception(rows: list[Any], noise: bytes, method: Any) -> None:
    content = b"\n".join([*(json.dumps(row).encode() for row in rows), noise])
    found = validate(io.BytesIO(content), method, least=1)
    assert found.problem is None or found.code


def test_values_nested_thousands_deep_are_a_finding() -> None:
    deep = '{"messages": ' + "[" * 5000 + "]" * 5000 + "}"
    half = '{"messages": [{"role": ' + "[" * 900 + "]" * 900 + "}]}"
    for text in (deep, half):
        found = validate(io.BytesIO(text.encode()), "supervised", least=1)
        assert found.problem is not None
