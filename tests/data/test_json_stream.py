"""JSON as a stream: what json.loads gives, element by element, in bounded windows; damage costs one element."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data import json_stream
from ownchat.data.files import open_file
from ownchat.data.json_outline import outline
from ownchat.data.json_stream import parse, rows

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def stream(tmp_path, content: str | bytes, *path: str, name: str = "a.json"):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return list(rows(open_file(tmp_path / name, name), *path))


@settings(max_examples=60, deadline=None)
@given(values=st.lists(VALUES, max_size=8), indent=st.sampled_from([None, 2]), window=st.integers(1, 60))
def test_elements_are_those_of_json_loads(tmp_path_factory, values, indent, window):
    folder = tmp_path_factory.mktemp("json")
    text = json.dumps({"a": 1, "rows": values, "z": [1, {"b": 2}]}, indent=indent, ensure_ascii=False)
    old, json_stream.WINDOW = json_stream.WINDOW, window
    try:
        found = stream(folder, text, "rows")
    finally:
        json_stream.WINDOW = old
    assert [row.value for row in found] == json.loads(text)["rows"]
    assert not [row for row in found if row.problem]
    lines = text.split("\n")
    for row in found if indent else []:
        beginning = "\n".join(lines[row.line - 1 :]).lstrip()
        assert json.JSONDecoder().raw_decode(beginning)[0] == row.value


def test_context_and_inner_lists(tmp_path):
    text = json.dumps(
        {"name": "account", "chats": {"list": [{"id": 1, "messages": [1, 2]}, {"id": 2, "messages": [3]}]}, "end": 1}
    )
    found = stream(tmp_path, text, "chats", "list", "*", "messages")
    assert [(row.value, row.context["id"], row.context["name"]) for row in found] == [
        (1, 1, "account"), (2, 1, "account"), (3, 2, "account"),
    ]  # fmt: skip
    assert stream(tmp_path, text, "nothing", "here") == []


def test_objects_one_after_the_other(tmp_path):
    found = stream(tmp_path, '{"a": 1}\n\n{"a": 2}\n')
    assert [(row.line, row.value) for row in found] == [(1, {"a": 1}), (3, {"a": 2})]


@pytest.mark.parametrize(
    "damaged",
    ['{"id": 2, "t" "x", "n": {"id": 9}}', '{"id": 2, "t": "x", "n": {"id": 9}', '{"id": 2, "t": tru}', "[" * 5000],
)
def test_damage_costs_one_element(tmp_path, damaged):
    good = [json.dumps({"id": i, "t": "ab", "n": {"id": i}}) for i in range(5)]
    found = stream(tmp_path, "[" + ",\n".join([*good[:2], damaged, *good[2:]]) + "]")
    kept = [row.value["id"] for row in found if not row.problem]
    assert kept[:2] == [0, 1]
    assert kept[-2:] == [3, 4]
    assert next(row.line for row in found if row.problem) == 3


def test_a_file_without_its_end(tmp_path):
    text = json.dumps([{"id": i, "text": "word " * 10} for i in range(20)])
    for end in range(1, len(text) - 1, 37):
        found = stream(tmp_path, text[:end])
        good = [row.value["id"] for row in found if not row.problem]
        assert good == list(range(len(good)))
        assert [row.problem for row in found][-1], "the end is missing: that has to be said"


def test_nesting_long_values_and_huge_numbers(tmp_path):
    found = stream(tmp_path, "[" + "[" * 10_000 + "]" * 10_000 + ', {"a": 1}]')
    assert "thousands deep" in found[0].problem
    long = "x" * 9_000_000
    assert stream(tmp_path, json.dumps([{"a": long}, {"a": 1}]))[0].value == {"a": long}
    assert stream(tmp_path, "[" + "9" * 5000 + "]")[0].problem


def test_what_is_mended():
    assert parse('{"a": "\\ud83d"}') == ({"a": "\ufffd"}, ("half a character replaced",))
    assert parse('{"a": {"b": 1, "b": 2}}') == ({"a": {"b": 2}}, ("a key stands twice, the last one counts",))
    assert parse('{"a": "say \\"b\\": x", "c": NaN}')[1] == ()


@settings(max_examples=80, deadline=None)
@given(value=VALUES.filter(lambda value: isinstance(value, list | dict)), cut=st.integers(0, 200))
def test_an_outline_is_the_beginning(value, cut):
    text = json.dumps(value)
    assert outline(text, whole=True) == value
    beginning = outline(text[: max(1, len(text) - cut)], whole=False)
    assert beginning is None or isinstance(beginning, type(value))
    if isinstance(value, dict) and beginning:
        assert set(beginning) <= set(value)
    if isinstance(value, list) and beginning:
        assert beginning[: len(beginning) - 1] == value[: len(beginning) - 1]


def test_outlines_of_lines_and_of_prose():
    assert outline('{"a": 1}\n{"a": 2}\n{"a": 3', whole=False) == [{"a": 1}, {"a": 2}]
    assert outline("[Intro]\nla la", whole=True) is None
    assert outline("{curly} words", whole=True) is None
