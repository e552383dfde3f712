"""What the finder adds to its layers: titles and initials, names that stand again, words that are outvoted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.private.features import Lexicon, Tokens, Words
from ownchat.clean.private.finder import Finder, _entitled
from ownchat.clean.private.spans import Span
from ownchat.clean.private.tagger import default_tagger, distinct_sequences, label_probabilities

EMPTY = Lexicon(np.empty(0, np.uint32), np.empty(0, np.uint8))


@pytest.mark.parametrize(
    ("text", "name", "whole"),
    [
        ("Dear Mrs. Berg,", "Berg", "Mrs. Berg"),
        ("before District Judge Berg and", "Berg", "District Judge Berg"),
        ("signed A. B. Berg", "Berg", "A. B. Berg"),
        ("signed S.P. Berg", "Berg", "S.P. Berg"),
        ("i asked mister berg", "berg", "mister berg"),
        ("the judge Berg knew", "Berg", "Berg"),
        ("Section A Berg", "Berg", "A Berg"),
        ("In USA. Berg", "Berg", "Berg"),
    ],
)
def test_titles_and_initials_belong_to_the_name(text, name, whole):
    start = text.index(name)
    (span,) = _entitled(text, [Span(start, start + len(name), "person", 0.9, "tagger")])
    assert text[span.start : span.end] == whole


def test_a_title_is_not_taken_from_the_span_before():
    spans = [Span(0, 2, "phone", 0.9, "x"), Span(3, 7, "person", 0.9, "tagger")]
    assert _entitled("Mr Berg", spans) == spans


class Scripted(Finder):
    """A finder whose tagger is told what to see."""

    def see(self, texts, people, others):
        found = [[Span(a, b, "person", score, "tagger") for a, b, score in one] for one in people]
        return [[text[one.start : one.end] for one in spans]
                for text, spans in zip(texts, self._repeat(texts, found, others), strict=True)]  # fmt: skip


def test_a_name_found_once_is_found_again():
    texts = ["Zbigniew Wrzosek came.", "Wrzosek left. wrzosek"]
    assert Scripted().see(texts, [[(0, 16, 0.9)], []], [[], []]) == [["Zbigniew Wrzosek"], ["Wrzosek"]]


def test_a_name_of_small_score_or_a_common_word_is_not_sought():
    assert Scripted().see(["Wrzosek. Wrzosek"], [[(0, 7, 0.4)]], [[]]) == [["Wrzosek"]]
    assert Scripted().see(["The Because. Because"], [[(4, 11, 0.9)]], [[]]) == [["Because"]]


def test_a_word_that_is_a_place_more_often_is_nobody():
    text = "Ostrava grew. In Ostrava, and Ostrava. Anna Ostrava"
    people, others = [(0, 7, 0.9), (39, 51, 0.9)], [(17, 24), (30, 37), (17, 24)]
    assert Scripted().see([text], [people], [others]) == [["Anna Ostrava"]]
    assert Scripted().see([text], [people], [others[:1]]) == [["Ostrava"] * 3 + ["Anna Ostrava"]]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["ok thanks", "OK thanks", "my name is anna", "", "1 1 1", "1  11", "a.b"]), max_size=8)
)
def test_repeated_sequences_get_what_each_would_get_alone(texts):
    tagger = default_tagger()
    tokens, found = tagger.probabilities([*texts, "1 " * 400])
    every = label_probabilities(tagger.scores(tokens), tokens.sequences, tagger.model.transitions)
    assert np.allclose(found, every, atol=1e-5)
    chosen, where = distinct_sequences(tokens)
    assert np.array_equal(tokens.ids[chosen][where], tokens.ids) and len(chosen) <= len(tokens)


def test_a_page_of_one_sign_is_looked_at_once():
    chosen, _ = distinct_sequences(Tokens(["1-" * 9_600], Words(EMPTY)))
    assert len(chosen) <= 4 * 96
