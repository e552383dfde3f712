"""The user's own lists: words and expressions, those that are refused, and work that grows with the text."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.private.finder import Finder
from ownchat.clean.private.lists import compile_list, outside, places, united
from ownchat.clean.private.redaction import redact
from ownchat.clean.private.spans import CUSTOM, Span
from ownchat.errors import ConfigError

EXPRESSIONS = ["a+", "b?a", "[0-9]{2,3}", "(ab|c)d", "é", "x*", "^a", "a$", "(?i)AB", r"\.", "京."]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(EXPRESSIONS), st.text("abcd09é京. \n\x02\x03x", max_size=30))
def test_expressions_find_what_a_naive_search_finds(expression, text):
    expected = [match.span() for match in re.finditer(expression.replace("$", r"\Z"), text) if match[0]]
    assert places(compile_list([f"/{expression}/"], "deny"), text) == expected


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("/(a/", "is broken: missing )"), ("/a**/", "is broken"), ("/a(?=b)/", "has look-ahead"),
        ("/(?<!a)b/", "has negative look-behind"), (r"/(a)\1/", "is broken"), ("/a{1,9999}/", "is broken"),
        (r"/\bÅsa\b/", "not ASCII"), ("//", "is empty"), ("/\ud800/", "is broken"),
    ],
)  # fmt: skip
def test_what_the_engine_cannot_do_is_refused_with_its_place(entry, why):
    with pytest.raises(ConfigError) as error:
        compile_list(["fine", entry], "allow")
    message = str(error.value)
    assert why in message and "entry 2" in message and "What to do" in message


def test_words_stand_between_borders_in_any_case():
    words = compile_list(["Anna  Berg", "R2-D2"], "deny")
    assert places(words, "anna\nberg, Annaberg, ANNA BERGS, r2-d2") == [(0, 9), (33, 38)]


def test_a_text_with_half_characters_is_searched():
    assert places(compile_list(["/b/"], "deny"), "a\ud800b") == [(2, 3)]


def test_an_expression_that_would_backtrack_takes_time_by_the_length():
    finder = Finder(deny=["/(a+)+$/", "/(a|aa)*b/"], detectors=("patterns",))
    text = "a" * 400_000 + "!"
    assert finder.find([[text]]) == [[[]]]


def test_ranges():
    assert united([(5, 7), (0, 2), (1, 4), (4, 4), (9, 9)]) == [(0, 4), (5, 7)]
    spans = [Span(0, 2, "person", 1, "x"), Span(1, 5, "person", 1, "x"), Span(0, 1, CUSTOM, 1, "x")]
    assert outside(spans, [(0, 4)]) == spans[1:]


@pytest.mark.parametrize(
    ("entry", "text", "expected"),
    [
        ("王小明", "我叫王小明，你好", ["王小明"]), ("田中太郎", "私の名前は田中太郎です", ["田中太郎"]),
        ("สมชาย", "ผมชื่อสมชายครับ", ["สมชาย"]), ("김철수", "저는 김철수입니다", ["김철수"]),
        ("Anna", "我叫Anna吧", ["Anna"]), ("Anna", "我叫Annabel吧", []),
        ("Zhang王", "xZhang王y Zhang王了", ["Zhang王"]),
        ("𠮷野", "は𠮷野です", ["𠮷野"]), ("Berg", "Bergé, berg's", ["berg"]),
    ],
)  # fmt: skip
def test_scripts_without_spaces_have_borders_everywhere(entry, text, expected):
    assert [text[start:end] for start, end in places(compile_list([entry], "deny"), text)] == expected
    assert [
        text[one.start : one.end] for one in redact(text, deny=[entry], types=["person"]).spans if one.type == CUSTOM
    ] == expected


def test_the_allow_list_reaches_into_running_text():
    spans = [Span(2, 5, "person", 0.9, "tagger")]
    assert outside(spans, places(compile_list(["王小明"], "allow"), "我叫王小明，你好")) == []
